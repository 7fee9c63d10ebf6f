"""Tables of names, one a layout: (prefix in the file, path in the Flax network, kind of layer).

A rule's pattern matches a whole layer prefix of the file; its kind says which leaves the layer has
and how each is turned into Flax's order.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from converters.rules import edgeface, inception_resnet_v1, ir, keras, mobilefacenet, mxnet, vit
from opom_jax.networks.ir import IRESNET_UNITS, UNITS

Transform = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


def same(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As it is."""
    return array


def conv(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """OIHW -> HWIO."""
    return array.transpose(2, 3, 1, 0)


def depthwise(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(C,1,H,W) -> HWC."""
    return array[:, 0].transpose(1, 2, 0)


def dense(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(O,I) -> (I,O)."""
    return array.T


def flat_dense(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(O, C*H*W), flattened in torch's order -> HWCO."""
    height, width, channels, outputs = shape
    if len(array) != outputs:
        return array  # transposed, for one: as many numbers, but not this layer's shape
    return array.reshape(outputs, channels, height, width).transpose(2, 3, 1, 0)


def _keras_dense(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H*W*C, O) -> HWCO: Keras flattens in the order that the map has."""
    return array.reshape(shape) if array.shape[1] == shape[3] else array


def _keras_local(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H'*W', K*L*I, O) -> (H', W', K*L*I, O)."""
    return array.reshape(shape) if array.shape[1:] == shape[2:] else array


def _keras_slope(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(1,1,C), shared by rows and columns, -> C."""
    return array[0, 0]


_STATISTICS = {
    "beta": ("bias", same, 1),
    "moving_mean": ("mean", same, 1),
    "moving_var": ("var", same, 1),
}
# kind -> {leaf in the file: (leaf in Flax, transform, dimensions in the file)}; without a transform
# the file's array must have the shape of that leaf, and is dropped
KINDS: dict[str, dict[str, tuple[str, Transform | None, int]]] = {
    "conv": {"weight": ("kernel", conv, 4), "bias": ("bias", same, 1)},
    "depthwise": {"weight": ("kernel", depthwise, 4), "bias": ("bias", same, 1)},
    "dense": {"weight": ("kernel", dense, 2), "bias": ("bias", same, 1)},
    "flat_dense": {"weight": ("kernel", flat_dense, 2), "bias": ("bias", same, 1)},
    "prelu": {"weight": ("slope", same, 1)},
    "positions": {"pos_embed": ("positions", same, 3)},
    "gains": {"gamma": ("branch/gain", same, 1), "gamma_xca": ("attention_gain", same, 1)},
    "temperature": {"temperature": ("temperature", same, 3)},
    "ln": {"weight": ("scale", same, 1), "bias": ("bias", same, 1)},
    "bn": {
        "weight": ("scale", same, 1),
        "bias": ("bias", same, 1),
        "running_mean": ("mean", same, 1),
        "running_var": ("var", same, 1),
    },
    "keras_conv": {"kernel": ("kernel", same, 4), "bias": ("bias", same, 1)},
    "keras_dense": {"kernel": ("kernel", _keras_dense, 2), "bias": ("bias", same, 1)},
    "keras_local": {"kernel": ("kernel", _keras_local, 3), "bias": ("bias", same, 3)},
    "keras_prelu": {"alpha": ("slope", _keras_slope, 3)},
    "keras_bn": {
        "gamma": ("scale", same, 1),
        "beta": ("bias", same, 1),
        "moving_mean": ("mean", same, 1),
        "moving_variance": ("var", same, 1),
    },
    "mxnet_prelu": {"gamma": ("slope", same, 1)},
    "mxnet_bn": {"gamma": ("scale", same, 1), **_STATISTICS},
    "mxnet_bn_fixed": {"gamma": ("bias", None, 1), **_STATISTICS},  # fix_gamma: it is 1
}
TORCH = r"(.*?)\.?(\w+)"


class Layout(NamedTuple):
    """The names of one family of files.

    Attributes:
      rules: (pattern of a layer's prefix, Flax path template, kind of `KINDS`).
      prefixes: prefixes that all names of such a file may share; stripped by rule.
      name: pattern of a name: the layer's prefix, the leaf.
      groups: groups of the file that make one network together.
      ignored: pattern of names that are no part of the network, such as its classifier.
    """

    rules: tuple[tuple[str, str, str], ...]
    prefixes: tuple[str, ...] = ()
    name: str = TORCH
    groups: tuple[str, ...] = ()
    ignored: str = r"(.*\.)?num_batches_tracked"


_mxnet = partial(Layout, name=mxnet.NAME, groups=("arg", "aux"), ignored=mxnet.CLASSIFIER)

LAYOUTS: dict[str, Layout] = {
    "ir": Layout(ir.RULES),
    **{f"iresnet_{n}": Layout(ir.iresnet(units)) for n, units in IRESNET_UNITS.items()},
    "cbam_ir_50": Layout(ir.cbam(UNITS[50])),
    "mobilefacenet_blocks": Layout(mobilefacenet.BLOCKS),
    "mobilefacenet_renamed": Layout(mobilefacenet.RENAMED),
    "mobilefacenet_named": Layout(mobilefacenet.NAMED, ("arcface.",)),
    "inception_resnet_v1": Layout(inception_resnet_v1.RULES),
    "mobilefacenet_v2": Layout(mobilefacenet.V2),
    "edgeface": Layout(edgeface.RULES, ("model.",)),
    "vit": Layout(vit.RULES, ignored=vit.IGNORED),
    "keras_arcface": Layout(keras.ARCFACE),
    "keras_facenet": Layout(keras.FACENET),
    "keras_openface": Layout(keras.OPENFACE),
    "keras_vgg_face": Layout(keras.VGG_FACE, ignored=r"conv2d_15\..*"),
    "keras_deepid": Layout(keras.DEEPID),
    "keras_fb_deepface": Layout(keras.FB_DEEPFACE, ignored=r"F8\..*"),
    **{f"mxnet_{family}": _mxnet(rules) for family, rules in mxnet.RULES.items()},
}
