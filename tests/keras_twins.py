"""Keras twins of Chameleon's Keras recognisers, with the names of layers that deepface gives them.

Written with keras.layers on the torch backend, which compiles nothing, apart from `opom_jax`, so
that widths, paddings and orders are said twice. Build and call them within `plain()`.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator

os.environ["KERAS_BACKEND"] = "torch"

import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers, ops  # noqa: E402


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Lets Keras convert its variables as NumPy 1 did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def draw(model: keras.Model, gain: float) -> None:
    """Every number anew, at a scale that keeps activations alive."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        kind, shape = variable.name, tuple(variable.shape)
        if kind == "kernel":
            inputs = shape[1] if len(shape) == 3 else np.prod(shape[:-1])  # 3: locally connected
            values = rng.standard_normal(shape) * gain / np.sqrt(inputs)
        elif kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.uniform(0, 0.5, shape) if kind == "alpha" else rng.normal(0, 0.1, shape)
        if not kind.startswith("seed"):
            variable.assign(values.astype(np.float32))


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What the model, or its first head, makes of f32[B,H,W,3]."""
    made = model(images, training=False)
    return ops.convert_to_numpy(made[0] if isinstance(made, list) else made)


def save_as_deepface(model: keras.Model, path) -> None:
    """As Keras 2 saves weights: LAYER/LAYER/VARIABLE:0."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            for weight in layer.weights:
                group[f"{layer.name}/{weight.name}:0"] = ops.convert_to_numpy(weight.value)


# ArcFace.


def arcface(size: int, widths: tuple[int, ...], embedding: int) -> keras.Model:
    """ResNet-34, units before the activation; the shortcut of a stage's first is a convolution."""

    def bn(name=None):
        return layers.BatchNormalization(epsilon=2e-5, name=name)

    def conv(x, width, name, side=3, stride=1):
        x = layers.ZeroPadding2D(side // 2)(x)
        return layers.Conv2D(width, side, stride, use_bias=False, name=name)(x)

    def prelu(name):
        return layers.PReLU(shared_axes=[1, 2], name=name)

    image = keras.Input((size, size, 3))
    x = prelu("conv1_prelu")(bn("conv1_bn")(conv(image, widths[0], "conv1_conv")))
    for stage, (count, width) in enumerate(zip((3, 4, 6, 3), widths, strict=True), 2):
        for k in range(1, count + 1):
            name, stride = f"conv{stage}_block{k}", 2 if k == 1 else 1
            shortcut = x
            if k == 1:
                shortcut = bn(f"{name}_0_bn")(conv(x, width, f"{name}_0_conv", 1, 2))
            x = conv(bn(f"{name}_1_bn")(x), width, f"{name}_1_conv")
            x = prelu(f"{name}_1_prelu")(bn(f"{name}_2_bn")(x))
            x = bn(f"{name}_3_bn")(conv(x, width, f"{name}_2_conv", 3, stride))
            x = layers.Add()([shortcut, x])
    x = layers.Dense(embedding)(layers.Flatten()(layers.Dropout(0.4)(bn()(x))))
    return keras.Model(image, bn("embedding")(x), name="ResNet34")


# Facenet.


def _facenet_conv(x, width, side, name, stride=1, padding="same"):
    x = layers.Conv2D(width, side, stride, padding, use_bias=False, name=name)(x)
    bn = layers.BatchNormalization(epsilon=1e-3, scale=False, name=f"{name}_BatchNorm")
    return layers.Activation("relu")(bn(x))


def _facenet_block(x, name, width, sides, scale, second="1", relu=True):
    """`sides`: of each branch's convolutions; deepface calls the last branch `second` in some."""
    ends = []
    for branch, convs in enumerate(sides):
        y = x
        for letter, side in zip("abc", convs, strict=False):
            rows, columns = side if isinstance(side, tuple) else (side, side)
            number = second if branch == 1 else branch
            place = "" if branch == 0 else f"0{letter}_"
            y = _facenet_conv(
                y, width, side, f"{name}_Branch_{number}_Conv2d_{place}{rows}x{columns}"
            )
        ends.append(y)
    y = layers.Concatenate()(ends)
    y = layers.Conv2D(x.shape[-1], 1, name=f"{name}_Conv2d_1x1")(y)
    y = layers.Add()([x, layers.Rescaling(scale)(y)])
    return layers.Activation("relu")(y) if relu else y


def _facenet_reduction(x, name, branches):
    """Branches of (name, channels, side); the last of each, named 1a, has stride 2."""
    ends = []
    for branch, convs in enumerate(branches):
        y = x
        for place, width, side in convs:
            down = {"stride": 2, "padding": "valid"} if place == "1a" else {}
            path = f"{name}_Branch_{branch}_Conv2d_{place}_{side}x{side}"
            y = _facenet_conv(y, width, side, path, **down)
        ends.append(y)
    return layers.Concatenate()([*ends, layers.MaxPooling2D(3, 2)(x)])


def facenet(size: int, blocks: tuple[int, int, int], embedding: int) -> keras.Model:
    """Inception-ResNet-v1 without gammas."""
    image = x = keras.Input((size, size, 3))
    for name, width, side, stride, padding in (
        ("1a", 32, 3, 2, "valid"),
        ("2a", 32, 3, 1, "valid"),
        ("2b", 64, 3, 1, "same"),
        ("3b", 80, 1, 1, "valid"),
        ("4a", 192, 3, 1, "valid"),
        ("4b", 256, 3, 2, "valid"),
    ):
        x = _facenet_conv(x, width, side, f"Conv2d_{name}_{side}x{side}", stride, padding)
        x = layers.MaxPooling2D(3, 2)(x) if name == "2b" else x
    for k in range(1, blocks[0] + 1):
        x = _facenet_block(x, f"Block35_{k}", 32, ((1,), (1, 3), (1, 3, 3)), 0.17)
    x = _facenet_reduction(
        x, "Mixed_6a", ([("1a", 384, 3)], [("0a", 192, 1), ("0b", 192, 3), ("1a", 256, 3)])
    )
    for k in range(1, blocks[1] + 1):
        x = _facenet_block(x, f"Block17_{k}", 128, ((1,), (1, (1, 7), (7, 1))), 0.1, f"{k}")
    x = _facenet_reduction(
        x,
        "Mixed_7a",
        (
            [("0a", 256, 1), ("1a", 384, 3)],
            [("0a", 256, 1), ("1a", 256, 3)],
            [("0a", 256, 1), ("0b", 256, 3), ("1a", 256, 3)],
        ),
    )
    small = ((1,), (1, (1, 3), (3, 1)))
    for k in range(1, blocks[2] + 1):
        x = _facenet_block(x, f"Block8_{k}", 192, small, 0.2, f"{k}")
    x = _facenet_block(x, "Block8_6", 192, small, 1.0, relu=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(embedding, use_bias=False, name="Bottleneck")(x)
    bn = layers.BatchNormalization(epsilon=1e-3, scale=False, name="Bottleneck_BatchNorm")
    return keras.Model(image, bn(x), name="inception_resnet_v1")


# OpenFace.


class ResponseNorm(layers.Layer):
    """Channel by channel, as TensorFlow's lrn with alpha 1e-4, beta 0.75, radius 5, bias 1."""

    def call(self, x):
        squares = ops.pad(x**2, ((0, 0), (0, 0), (0, 0), (5, 5)))
        near = sum(squares[..., k : k + x.shape[-1]] for k in range(11))
        return x * (1 + 1e-4 * near) ** -0.75


class UnitLength(layers.Layer):
    def call(self, x):
        return ops.normalize(x, axis=1)


class Power(layers.Layer):
    """factor * x^exponent."""

    def __init__(self, factor, exponent, **options):
        super().__init__(**options)
        self.factor, self.exponent = factor, exponent

    def call(self, x):
        return self.factor * x**self.exponent


def _openface_conv(x, width, side, conv, bn, stride=1):
    x = layers.ZeroPadding2D(side // 2)(x)
    x = layers.Conv2D(width, side, stride, name=conv)(x)
    return layers.Activation("relu")(layers.BatchNormalization(epsilon=1e-5, name=bn)(x))


# module -> widths of 3x3, of 5x5, of the pool and its kind, of 1x1, stride, zeros around the pool
_OPENFACE = {
    "3a": ((96, 128), (16, 32), 32, "max", 64, 1, (3, 4)),
    "3b": ((96, 128), (32, 64), 64, "l2", 64, 1, (4, 4)),
    "3c": ((128, 256), (32, 64), 0, "max", 0, 2, (0, 1)),
    "4a": ((96, 192), (32, 64), 128, "l2", 256, 1, (2, 2)),
    "4e": ((160, 256), (64, 128), 0, "max", 0, 2, (0, 1)),
    "5a": ((96, 384), (), 96, "l2", 256, 1, (1, 1)),
    "5b": ((96, 384), (), 96, "max", 256, 1, (1, 1)),
}


def _openface_module(x, name, divisor, three, five, pooled, pool, point, stride, pads):
    name, ends = f"inception_{name}", []
    for side, widths in ((3, three), (5, five)):
        y = x
        for k, width in enumerate(widths, 1):
            parts = [f"{name}_{side}x{side}_{layer}{k}" for layer in ("conv", "bn")]
            y = _openface_conv(y, width // divisor, (1, side)[k - 1], *parts, (1, stride)[k - 1])
        ends += [y] if widths else []
    if pool == "max":
        y = layers.MaxPooling2D(3, 2)(x)
    else:
        y = Power(1, 0.5)(Power(9, 1)(layers.AveragePooling2D(3, 3)(Power(1, 2)(x))))
    if pooled:
        y = _openface_conv(y, pooled // divisor, 1, f"{name}_pool_conv", f"{name}_pool_bn")
    ends.append(layers.ZeroPadding2D((pads, pads))(y))
    if point:
        ends.append(_openface_conv(x, point // divisor, 1, f"{name}_1x1_conv", f"{name}_1x1_bn"))
    return layers.Concatenate()(ends)


def openface(divisor: int = 1, embedding: int = 128) -> keras.Model:
    """nn4.small2, every width divided."""
    image = keras.Input((96, 96, 3))
    x = _openface_conv(image, 64 // divisor, 7, "conv1", "bn1", 2)
    x = ResponseNorm()(layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x)))
    x = _openface_conv(x, 64 // divisor, 1, "conv2", "bn2")
    x = ResponseNorm()(_openface_conv(x, 192 // divisor, 3, "conv3", "bn3"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for name, settings in _OPENFACE.items():
        x = _openface_module(x, name, divisor, *settings)
    x = layers.Flatten()(layers.AveragePooling2D(3, 1)(x))
    x = layers.Dense(embedding, name="dense_layer")(x)
    return keras.Model(image, UnitLength(name="norm_layer")(x))


# VGG-Face, DeepID.


def vgg_face(size: int, widths: tuple[int, ...], embedding: int, people: int) -> keras.Model:
    """(descriptor, classifier), whose convolutions Keras names."""
    image = x = keras.Input((size, size, 3))
    for count, width in zip((2, 2, 3, 3, 3), widths, strict=True):
        for _ in range(count):
            x = layers.ZeroPadding2D(1)(x)
            x = layers.Conv2D(width, 3, activation="relu")(x)
        x = layers.MaxPooling2D(2, 2)(x)
    x = layers.Dropout(0.5)(layers.Conv2D(embedding, size // 32, activation="relu")(x))
    x = layers.Conv2D(embedding, 1, activation="relu")(x)
    descriptor = UnitLength()(layers.Flatten()(x))
    scores = layers.Flatten()(layers.Conv2D(people, 1)(x))
    return keras.Model(image, [descriptor, layers.Activation("softmax")(scores)])


def deepid() -> keras.Model:
    image = x = keras.Input((55, 47, 3))
    for k, (width, side) in enumerate(((20, 4), (40, 3), (60, 3)), 1):
        x = layers.Conv2D(width, side, activation="relu", name=f"Conv{k}")(x)
        x = layers.Dropout(0.99)(layers.MaxPooling2D(2, 2, name=f"Pool{k}")(x))
    early = layers.Dense(160, name="fc11")(layers.Flatten()(x))
    x = layers.Conv2D(80, 2, activation="relu", name="Conv4")(x)
    late = layers.Dense(160, name="fc12")(layers.Flatten()(x))
    return keras.Model(image, layers.Activation("relu")(layers.Add()([early, late])))


# DeepFace.


class LocallyConnected2D(layers.Layer):
    """What Keras 2 called so, which Keras 3 has no more: a NumPy loop over the output's pixels.

    As Keras 2 stores it: kernel (pixels, rows * columns * inputs, outputs), bias (H',W',outputs).
    """

    def __init__(self, filters, size, stride=1, **options):
        super().__init__(**options)
        self.filters, self.size, self.stride = filters, size, stride

    def compute_output_shape(self, shape):
        side = (shape[1] - self.size) // self.stride + 1
        return (shape[0], side, side, self.filters)

    def build(self, shape):
        _, height, width, _ = self.compute_output_shape(shape)
        kernel = (height * width, self.size**2 * shape[-1], self.filters)
        self.kernel = self.add_weight(shape=kernel, name="kernel")
        self.bias = self.add_weight(shape=(height, width, self.filters), name="bias")

    def call(self, x):
        x, kernel, bias = (np.asarray(ops.convert_to_numpy(v)) for v in (x, self.kernel, self.bias))
        y = np.zeros(self.compute_output_shape(x.shape), np.float32)
        for row, column in np.ndindex(y.shape[1:3]):
            top, left = row * self.stride, column * self.stride
            patch = x[:, top : top + self.size, left : left + self.size].reshape(len(x), -1)
            y[:, row, column] = patch @ kernel[row * y.shape[2] + column] + bias[row, column]
        return ops.convert_to_tensor(np.maximum(y, 0))


def deepface(size: int, widths: tuple[int, ...], embedding: int, people: int) -> keras.Model:
    """(F7, F8)."""
    c1, c3, l4, l5, l6 = widths
    image = keras.Input((size, size, 3))
    x = layers.Conv2D(c1, 11, activation="relu", name="C1")(image)
    x = layers.MaxPooling2D(3, 2, padding="same", name="M2")(x)
    x = layers.Conv2D(c3, 9, activation="relu", name="C3")(x)
    x = LocallyConnected2D(l4, 9, name="L4")(x)
    x = LocallyConnected2D(l5, 7, 2, name="L5")(x)
    x = LocallyConnected2D(l6, 5, name="L6")(x)
    x = layers.Dense(embedding, activation="relu", name="F7")(layers.Flatten(name="F0")(x))
    people_ = layers.Dense(people, activation="softmax", name="F8")(layers.Dropout(0.5)(x))
    return keras.Model(image, [x, people_])
