"""Layers with rewritten gradients: equal to XLA's own, and lowered to what is fast."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from opom_jax.networks import winograd
from opom_jax.networks.convolution import convolution, known_of
from opom_jax.networks.depthwise import depthwise
from opom_jax.networks.layers import Conv, DepthwiseConv, FlatDense, PReLU, relu6

TOLERANCE = 1e-5  # of the largest value
# height, width, kernel, stride, padding
SIZES = [
    (8, 8, 3, 1, 1),
    (7, 5, 3, 1, 1),
    (6, 7, 3, 1, 0),
    (6, 5, 3, 1, 2),
    (6, 5, 3, 1, 3),  # more zeros than the kernel reaches over
    (6, 6, 1, 1, 0),
    (8, 6, 3, 2, 1),  # the gradient in four phases
    (2, 2, 3, 2, 1),
    (7, 8, 3, 2, 1),  # odd sides
    (8, 7, 3, 2, 1),
    (9, 9, 3, 2, 1),
    (8, 8, 3, 2, 0),
    (8, 8, 1, 2, 0),
    (7, 6, 1, 2, 0),
    (9, 8, 5, 2, 2),
    (8, 10, 3, 3, 1),
    (7, 7, 7, 1, 0),  # one output pixel
]


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed + sum(shape)).standard_normal(shape, np.float32))


def check_close(found, wanted, tolerance=TOLERANCE):
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def xla(x, kernel, stride=1, padding=0):
    """What `convolution` shall equal."""
    groups = x.shape[3] // kernel.shape[2]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def xla_depthwise(x, kernel, stride=1, padding=0):
    """What `depthwise` shall equal: one group a channel."""
    return xla(x, kernel[:, :, None], stride, padding)


@partial(jax.jit, static_argnums=0)
def values_and_gradients(function, x, kernel):
    y, vjp = jax.vjp(function, x, kernel)
    return y, *vjp(jnp.sin(10 * y))


def check_equal(found, wanted, x, kernel):
    """Values and both gradients of two functions."""
    pairs = (values_and_gradients(function, x, kernel) for function in (found, wanted))
    for one, other in zip(*pairs, strict=True):
        check_close(one, other)


def check_against_torch(found, x, kernel, stride=1, padding=0):
    """The same against torch, which compiles nothing; a kernel HWC is one filter a channel."""
    torch = pytest.importorskip("torch")
    y, *gradients = values_and_gradients(found, x, kernel)
    image, weight = (torch.tensor(np.asarray(array)).requires_grad_() for array in (x, kernel))
    wise = kernel.ndim == 3
    filters = (weight[:, :, None] if wise else weight).permute(3, 2, 0, 1).contiguous()
    groups = x.shape[3] if wise else 1
    planes = image.permute(0, 3, 1, 2).contiguous()  # else torch 2.13 errs at 1x1 with stride 2
    made = torch.conv2d(planes, filters, None, stride, padding, 1, groups)
    wanted = made.permute(0, 2, 3, 1)
    wanted.backward(torch.sin(10 * torch.tensor(np.asarray(y))))
    for one, other in zip((y, *gradients), (wanted.detach(), image.grad, weight.grad), strict=True):
        check_close(one, other.numpy())


@pytest.mark.parametrize("channels", [3, 5])  # of a picture, and more
@pytest.mark.parametrize(("height", "width", "size", "stride", "padding"), SIZES)
def test_convolution(height, width, size, stride, padding, channels):
    x, kernel = random(2, height, width, channels), random(size, size, channels, 5)
    found = partial(convolution, stride=stride, padding=padding)
    check_against_torch(lambda a, b: found(a, b), x, kernel, stride, padding)


@pytest.mark.parametrize(("height", "width", "size", "stride", "padding"), SIZES)
def test_convolution_with_what_is_known_of_its_kernel(height, width, size, stride, padding):
    x, kernel = random(2, height, width, 5), random(size, size, 5, 4)
    known = known_of(kernel, stride)
    assert not isinstance(known, tuple)
    found = partial(convolution, stride=stride, padding=padding, known=known)
    check_against_torch(lambda a, b: found(a, b), x, kernel, stride, padding)


@pytest.mark.parametrize("size", [size[:2] + size[4:] for size in SIZES if size[2:4] == (3, 1)])
def test_winograd(size):
    height, width, padding = size
    x, kernel = random(2, height, width, 5), random(3, 3, 5, 4)
    found = partial(convolution, stride=1, padding=padding, known=winograd.tiles(kernel))
    y, pull = jax.vjp(found, x, kernel)
    wanted, pull_wanted = jax.vjp(partial(xla, padding=padding), x, kernel)
    check_close(y, wanted)
    cotangent = random(*y.shape)
    for one, other in zip(pull(cotangent), pull_wanted(cotangent), strict=True):
        check_close(one, other)


def test_where_winograd_pays(monkeypatch):
    kernel = jax.ShapeDtypeStruct((3, 3, 128, 256), jnp.float32)
    assert winograd.pays(kernel, 1) == (jax.default_backend() == "cpu")
    assert not winograd.pays(kernel, 2)
    for shape, dtype in [
        ((3, 3, 64, 256), jnp.float32),
        ((1, 1, 128, 256), jnp.float32),
        ((3, 1, 128, 256), jnp.float32),
        ((3, 3, 128, 256), jnp.bfloat16),
    ]:
        assert not winograd.pays(jax.ShapeDtypeStruct(shape, dtype), 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not winograd.pays(kernel, 1)


def test_winograd_multiplies_less():
    """16 products for four outputs, not 36, and with a kernel that is known no work on it."""
    x, kernel = random(1, 16, 16, 128), random(3, 3, 128, 128)
    known = known_of(kernel, 1)

    def gradient(x, kernel, known):
        y, vjp = jax.vjp(lambda x: convolution(x, kernel, 1, 1, known), x)
        return vjp(y)

    def operations(known):
        return jax.jit(gradient).lower(x, kernel, known).compile().cost_analysis()["flops"]

    if jax.default_backend() == "cpu":
        assert operations(known) < 0.6 * operations(None)


@pytest.mark.parametrize(("height", "width", "size", "stride", "padding"), SIZES)
def test_depthwise(height, width, size, stride, padding):
    x, kernel = random(2, height, width, 3), random(size, size, 3)
    found = partial(depthwise, stride=stride, padding=padding)
    check_against_torch(lambda a, b: found(a, b), x, kernel, stride, padding)


@pytest.mark.parametrize(("height", "width"), [(7, 6), (4, 4), (1, 1)])
def test_global_depthwise(height, width):
    x, kernel = random(2, height, width, 5), random(height, width, 5)
    check_against_torch(depthwise, x, kernel)
    assert depthwise(x, kernel).shape == (2, 1, 1, 5)


def test_depthwise_with_a_rectangular_kernel_that_moves():
    check_against_torch(depthwise, random(2, 7, 8, 3), random(2, 3, 3))


# Many people at once: vmap over images, one set of kernels.

LAYERS = {
    "stride 1": (lambda x, k: convolution(x, k, 1, 1), xla, (3, 3, 5, 6), (1, 1)),
    "stride 2": (lambda x, k: convolution(x, k, 2, 1), xla, (3, 3, 5, 6), (2, 1)),
    "pointwise": (lambda x, k: convolution(x, k, 1, 0), xla, (1, 1, 5, 6), (1, 0)),
    "shortcut": (lambda x, k: convolution(x, k, 2, 0), xla, (1, 1, 5, 6), (2, 0)),
    "picture": (lambda x, k: convolution(x, k, 2, 1), xla, (3, 3, 3, 6), (2, 1)),
    "depthwise": (lambda x, k: depthwise(x, k, 1, 1), xla_depthwise, (3, 3, 4), (1, 1)),
    "depthwise 2": (lambda x, k: depthwise(x, k, 2, 1), xla_depthwise, (3, 3, 4), (2, 1)),
    "global": (lambda x, k: depthwise(x, k, 1, 0), xla_depthwise, (8, 8, 4), (1, 0)),
}
PEOPLE, PHOTOS = 3, 5


@pytest.fixture(params=LAYERS)
def layer(request):
    """A layer, XLA's, its kernel and photos [PEOPLE,PHOTOS,8,8,C]."""
    found, wanted, shape, (stride, padding) = LAYERS[request.param]
    wanted = partial(wanted, stride=stride, padding=padding)
    return found, wanted, random(*shape), random(PEOPLE, PHOTOS, 8, 8, shape[2])


def image_gradient(function):
    return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))))


def test_vmap_over_people(layer):
    found, wanted, kernel, photos = layer
    for of in (lambda f: f, image_gradient):
        mapped = jax.jit(jax.vmap(of(found), (0, None)))(photos, kernel)
        alone = jax.jit(of(wanted))
        check_close(mapped, jnp.stack([alone(own, kernel) for own in photos]))


def convolutions(function, *args):
    """(dimensions of the input, groups, dilation) of every convolution that a call lowers to."""
    text = jax.jit(function).lower(*args).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    return [
        (
            [int(n) for n in re.search(r": \(tensor<([\dx]+)xf32>", line)[1].split("x")],
            {int(n) for n in re.findall(r"_group_count = (\d+)", line)},
            "lhs_dilate = [2, 2]" in line,
        )
        for line in lines
    ]


def test_vmap_merges_people_into_one_batch(layer):
    found, _, kernel, photos = layer
    for function in (found, image_gradient(found)):
        lowered = convolutions(jax.vmap(function, (0, None)), photos, kernel)
        assert bool(lowered) == (kernel.ndim == 4)  # a depthwise layer needs none
        for (batch, *_), groups, dilated in lowered:
            assert batch == PEOPLE * PHOTOS and groups == {1}
            assert not dilated or kernel.shape[0] == 1  # cheap in a 1x1 convolution


def test_what_the_lowered_text_would_show():
    """The controls of the test above: kernels of one's own are groups, XLA's gradient dilates."""
    photos, kernels = random(PEOPLE, PHOTOS, 8, 8, 4), random(PEOPLE, 3, 3, 4, 6)
    [(_, groups, _)] = convolutions(jax.vmap(xla), photos, kernels)
    assert groups == {1, PEOPLE}
    gradient = image_gradient(partial(xla, stride=2, padding=1))
    assert any(dilated for *_, dilated in convolutions(gradient, photos[0], kernels[0]))


def test_two_uses_in_a_scan(layer):
    """Steps along the gradient of a layer that is called twice, as masks are made."""
    found, wanted, kernel, photos = layer

    def twice(function):
        return lambda x, k: function(x, k) + function(jnp.cos(x), k)

    def step(function):
        return lambda x, _=None: (x + 0.1 * image_gradient(twice(function))(x, kernel), None)

    x, one = photos[0], jax.jit(step(wanted))
    for _ in range(3):
        x, _ = one(x)
    scanned = jax.jit(lambda x: lax.scan(step(found), x, length=3)[0])(photos[0])
    check_close(scanned, x, 3 * TOLERANCE)  # of three steps, each rounded


def test_gradients_through_a_scan():
    """Both gradients of a layer applied to its own output, its kernel used every time."""
    x, kernel = random(2, 6, 6, 4), 0.2 * random(3, 3, 4, 4)

    def often(function, x, kernel):
        return lax.scan(lambda y, _: (jnp.tanh(function(y, kernel)), None), x, length=3)[0]

    found = partial(often, lambda x, k: convolution(x, k, 1, 1))
    check_equal(found, partial(often, partial(xla, padding=1)), x, kernel)


# Layers with weights.


def test_modules_hold_the_functions():
    x, rngs = random(2, 8, 8, 4), nnx.Rngs(0)
    conv = Conv(4, 6, 3, stride=2, padding=1, bias=True, rngs=rngs)
    conv.bias[...] = random(6)
    wanted = xla(x, conv.kernel[...], 2, 1) + conv.bias[None, None, None]
    check_close(conv(x), wanted)
    wise = DepthwiseConv(4, (3, 3), stride=2, padding=1, rngs=rngs)
    check_close(wise(x), xla_depthwise(x, wise.kernel[...], 2, 1))


def test_convolution_computes_in_the_type_of_its_kernel():
    conv = Conv(4, 6, 3, rngs=nnx.Rngs(0))
    conv.kernel = nnx.Param(conv.kernel.astype(jnp.bfloat16))
    assert conv(random(2, 8, 8, 4)).dtype == jnp.bfloat16


def test_prelu():
    prelu = PReLU(3, rngs=nnx.Rngs(0))
    prelu.slope[...] = jnp.array([0.5, -2.0, 0.0])
    x = jnp.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]).reshape(1, 3, 1, 3)
    y, vjp = jax.vjp(prelu, x)
    np.testing.assert_array_equal(y[0, :, 0], [[1, 1, 1], [-0.5, 2, 0], [0, 0, 0]])
    (gradient,) = vjp(jnp.ones_like(y))
    np.testing.assert_array_equal(gradient[0, :, 0], [[1, 1, 1], [0.5, -2, 0], [0.5, -2, 0]])


def test_relu6():
    x = jnp.array([[-1.0, 0.0, 0.5, 5.9, 6.0, 7.0]])
    y, vjp = jax.vjp(relu6, x)
    np.testing.assert_array_equal(y, jax.nn.relu6(x))
    np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0], [[0, 0, 1, 1, 0, 0]])
    assert relu6(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_flat_dense():
    dense = FlatDense(2, 3, 4, 5, rngs=nnx.Rngs(0))
    dense.bias[...] = random(5)
    x, kernel = random(7, 2, 3, 4), dense.kernel[...]
    assert kernel.shape == (2, 3, 4, 5)
    check_close(dense(x), jnp.einsum("bhwc,hwcd->bd", x, kernel) + dense.bias[None])


def test_flat_dense_sums_in_float32():
    dense = FlatDense(2, 3, 64, 5, rngs=nnx.Rngs(0))
    rough = dense.kernel[...].astype(jnp.bfloat16)
    dense.kernel = nnx.Param(rough)
    x = random(7, 2, 3, 64)
    y, vjp = jax.vjp(dense, x)
    assert y.dtype == jnp.float32 and vjp(jnp.ones_like(y))[0].dtype == jnp.float32
    wide = x.astype(jnp.bfloat16).astype(jnp.float32)
    check_close(y, jnp.einsum("bhwc,hwcd->bd", wide, rough.astype(jnp.float32)))
