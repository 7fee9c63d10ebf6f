"""The targets' families: every node of the published graphs, and the small networks' budget."""

import functools
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from converters.convert import translate
from opom_jax.errors import InputError
from opom_jax.networks import mobilenet
from opom_jax.networks.convolution import convolution
from opom_jax.networks.inception_resnet import InceptionResNet, Widths
from opom_jax.networks.ir import IR
from opom_jax.networks.layers import (
    Conv,
    DepthwiseConv,
    abstract,
    batch_norm,
    max_pool,
    mean_pool,
    on_outputs,
)
from opom_jax.networks.mobilenet import MobileNet
from opom_jax.networks.recognizer import _abstract, abstract_params
from opom_jax.networks.registry import NETWORKS
from opom_jax.networks.resnet import ResNet
from tests.mxnet_twins import FACTORS, TABLES, numbers, read_table

SMALL = ["ir_small", "mobilenet_small", "se_resnet_small", "inception_resnet_small"]
# Alike widths: nodes run one by one, and every other shape is another compilation.
NARROW_INCEPTION = Widths(
    stem=((4, 3, 0), (4, 3, 0), (4, 3, 1), (4, 1, 0), (4, 3, 0)),
    mixed=((4,), (4, 4), (4, 4, 4), (4,)),
    block_35=((4,), (4, 4), (4, 4, 4)),
    reduction_a=((4,), (4, 4, 4), ()),
    block_17=((4,), (4, 4, 4)),
    reduction_b=((4, 4), (4, 4), (4, 4, 4), ()),
    block_8=((4,), (4, 4, 4)),
    last=4,
)
RESNET = partial(ResNet, widths=(4, 4, 4, 4), reduction=1)
NARROW = {
    "mobilenet": partial(MobileNet, [(4, stride) for _, stride in mobilenet.STANDARD], stem=4),
    "se_resnet_50": partial(RESNET, se=True),
    "resnet_50": RESNET,
    "inception_resnet": partial(InceptionResNet, NARROW_INCEPTION),
}


# The published tables.


@pytest.fixture(params=TABLES)
def table(request, targets):
    """(network, rows up to the embedding)."""
    rows = read_table(targets, request.param)
    return request.param, rows[: [row["name"] for row in rows].index("fc1") + 1]


@functools.cache
def traced(network):
    """[(kernel, stride, padding, output)] of every convolution of a forward pass, and the shapes of
    the taps in order; nothing is computed."""
    calls = []

    def recorded(method):
        def call(layer, x):
            y = method(layer, x)
            calls.append((layer.kernel.shape, layer.stride, layer.padding, y.shape))
            return y

        return call

    def forward(params):
        _, taps = nnx.merge(graphdef, params)(spec.preprocess(jnp.zeros((1, 112, 112, 3))))
        return list(taps.values())  # eval_shape sorts dicts

    spec, (graphdef, params) = NETWORKS[network], _abstract(network)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Conv, DepthwiseConv):
            patch.setattr(kind, "__call__", recorded(kind.__call__))
        taps = jax.eval_shape(forward, params)
    return calls, [tap.shape for tap in taps]


SPARED = {
    "ir_50": 3,  # projections of shortcuts
    "ir_se_tiny": 3 + 8,  # and gates
    "mobilefacenet_xiaoccer": 2,  # the head
    "mobilefacenet_foamliu": 2,
    "mobilenet_small": 0,
    "se_resnet_small": 4 + 10,  # shortcuts and gates
    "inception_resnet_small": 0,
}


def changed(network):
    """[(place, shape)] of the outputs that pass through a change, in the order of the calls."""
    seen = []

    def change(place, output):
        seen.append((place, output.shape))
        return output

    def forward(params):
        module = nnx.merge(graphdef, params)
        on_outputs(module, lambda _: change)
        return module(spec.preprocess(jnp.zeros((2, 112, 112, 3))))[0]

    spec, (graphdef, params) = NETWORKS[network], _abstract(network)
    jax.eval_shape(forward, params)
    return seen


@pytest.mark.parametrize("network", SPARED)
def test_every_convolution_but_those_spared_can_be_changed(network):
    places, _ = zip(*changed(network), strict=True)
    assert len(places) == len(traced(network)[0]) - SPARED[network]
    assert sorted(places) == list(range(len(places)))


def test_published_places_of_dropout(goldens):
    published = json.loads((goldens / "state_dict_keys_opom.json").read_text())
    wanted = [(b, h, w, c) for b, c, h, w in published["IR_50_drop_det"]["shapes"]]
    assert [shape for _, shape in changed("ir_50")] == wanted


def kernel_shape(row):
    shape = numbers(row["kernel_shape"])
    return shape[:3] if row["op"] == "DepthwiseConv" else shape


def test_every_convolution_of_the_table(table):
    """Kernel, stride, padding and output."""
    network, rows = table
    wanted = Counter(
        (kernel_shape(row), numbers(row["strides"])[1], numbers(row["pads"])[1:3], row["shape"])
        for row in rows
        if row["op"] in ("Conv", "DepthwiseConv")
    )
    calls, _ = traced(network)
    pairs = ((k, s, (p, p) if isinstance(p, int) else p, y) for k, s, p, y in calls)
    assert Counter(pairs) == wanted


def test_every_array_of_the_table(table):
    """Leaf and shape of all weights and batch statistics; so also their number."""
    network, rows = table
    shapes = {row["name"]: row["shape"] for row in rows}
    wanted = Counter()
    for row in rows:
        channels = row["shape"][-1:] if row["shape"] else ()
        if row["op"] in ("Conv", "DepthwiseConv"):
            wanted["kernel", kernel_shape(row)] += 1
        elif row["op"] == "FullyConnected":
            wanted["kernel", (*shapes[row["inputs"][0]][1:], *channels)] += 1
        elif row["op"] == "PRelu":
            wanted["slope", channels] += 1
        elif row["op"] == "BatchNorm":
            leaves = ["mean", "var", "bias"] + ["scale"] * (row["scale"] == "True")
            wanted.update((leaf, channels) for leaf in leaves)
        wanted["bias", channels] += row.get("use_bias") == "True"
    found = abstract_params(network)
    assert Counter((p.rpartition("/")[2], v.shape) for p, v in found.items()) == +wanted


def stages(network, rows):
    """Names of the nodes that our taps are, in order."""
    follows = {row["inputs"][0]: row["name"] for row in rows if row["op"] == "Relu"}
    sums = [row["name"] for row in rows if row["op"] == "Add"]
    if network == "mobilenet":
        return [f"conv_{k}_relu" for k in range(1, 15)]
    if network != "inception_resnet":
        return ["relu0", *sums]
    sums = [follows.get(name, name) for name in sums]
    ends = (["activation4", "concat0"], ["concat11"], ["concat32"], ["activation242"])
    return [*ends[0], *sums[:10], *ends[1], *sums[10:30], *ends[2], *sums[30:], *ends[3]]


def test_every_stage_of_the_table(table):
    network, rows = table
    shapes = {row["name"]: row["shape"] for row in rows}
    _, taps = traced(network)
    assert taps == [shapes[name] for name in stages(network, rows)]


# The published graph, walked node by node, with the layers of a narrow network of ours.


def random_state(module):
    """Draws every array anew, batch statistics too."""
    rng = np.random.default_rng(0)
    for path, v in nnx.to_flat_state(nnx.state(module)):
        low, high = {"var": (0.5, 1.5), "scale": (0.5, 1.5)}.get(str(path[-1]), (-0.5, 0.5))
        if path[-1] == "kernel":
            high = 2 * math.prod(v.shape[:-1]) ** -0.5
            low = -high
        v.set_value(jnp.asarray(rng.uniform(low, high, v.shape), jnp.float32))
    return module


def layers_of_mobilenet(net):
    yield "conv_1_", (net.stem, net.stem_bn, net.stem_prelu)
    for k, b in enumerate(net.body, 2):
        yield f"conv_{k}_dw_", (b.depthwise, b.depthwise_bn, b.depthwise_prelu)
        yield f"conv_{k}_", (b.pointwise, b.pointwise_bn, b.pointwise_prelu)


def layers_of_resnet(net):
    yield from zip(("conv0", "bn0", "relu0"), (net.stem, net.stem_bn, net.stem_prelu), strict=True)
    places = [(s, u) for s, n in enumerate((3, 4, 14, 3), 1) for u in range(1, n + 1)]
    for (s, u), unit in zip(places, net.body, strict=True):
        named = {n: getattr(unit, n) for n in ("bn1", "conv1", "bn2", "conv2", "bn3")}
        named |= {"relu1": unit.prelu, "conv1sc": unit.shortcut, "sc": unit.shortcut_bn}
        if unit.se is not None:
            se = {"conv1": unit.se.fc1, "relu1": unit.se.prelu, "conv2": unit.se.fc2}
            named |= {f"se_{n}": layer for n, layer in se.items()}
        yield from ((f"stage{s}_unit{u}_{n}", layer) for n, layer in named.items())


def layers_of_inception(net):
    """Numbered in the order of their making."""

    def inside(branches):
        return [block for branch in branches.branches for block in branch]

    def residual(blocks):
        return [layer for b in blocks for layer in (*inside(b.branches), b.up)]

    order = [*net.stem, *inside(net.mixed), *residual(net.block_35), *inside(net.reduction_a)]
    order += [*residual(net.block_17), *inside(net.reduction_b), *residual(net.block_8), net.last]
    for k, block in enumerate(order):
        yield from ((f"convolution{k}", block.conv), (f"batchnorm{k}", block.bn))


def layers_of(network, net):
    """{node: our layer}."""
    named = {"bn1": net.head.bn, "pre_fc1": net.head.dense, "fc1": net.head.embedding_bn}
    if network == "mobilenet":
        for prefix, group in layers_of_mobilenet(net):
            names = (f"{prefix}{kind}" for kind in ("conv2d", "batchnorm", "relu"))
            named |= zip(names, group, strict=True)
        return named
    of = layers_of_inception if network == "inception_resnet" else layers_of_resnet
    return named | dict(of(net))


def windows(row, x, start, function):
    if row["global_pooling"] == "True":
        return x.mean((1, 2), keepdims=True)
    pads = [(p, p) for p in numbers(row["pads"])[:4]]
    sizes, strides = numbers(row["kernel_shape"]), numbers(row["strides"])
    return lax.reduce_window(x, start, function, sizes, strides, pads)


def node(row, layer, inputs):
    """One node by its attributes in plain lax; of our layer, only the arrays are used."""
    x, op = inputs[0], row["op"]
    if op in ("Conv", "DepthwiseConv"):
        kernel = layer.kernel[...] if op == "Conv" else layer.kernel[...][:, :, None]
        y = lax.conv_general_dilated(
            x,
            kernel,
            numbers(row["strides"])[1:3],
            [(p, p) for p in numbers(row["pads"])[1:3]],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=1 if op == "Conv" else x.shape[3],
        )
        return y + layer.bias[...].reshape(1, 1, 1, -1) if row["use_bias"] == "True" else y
    if op == "BatchNorm":
        shape = (1,) * (x.ndim - 1) + (-1,)
        mean, var, bias = (v[...].reshape(shape) for v in (layer.mean, layer.var, layer.bias))
        gamma = layer.scale[...].reshape(shape) if row["scale"] == "True" else 1.0
        return gamma * (x - mean) / jnp.sqrt(var + float(row["epsilon"])) + bias
    if op == "PRelu":
        return jnp.maximum(x, 0) + layer.slope[...].reshape(1, 1, 1, -1) * jnp.minimum(x, 0)
    if op == "FullyConnected":
        return jnp.tensordot(x, layer.kernel[...], 3) + layer.bias[...][None]
    if op == "Pool" and row["pooling_type"] == "MAX":
        return windows(row, x, -jnp.inf, lax.max)
    if op == "Pool":
        return windows(row, x, 0.0, lax.add) / (9 if row["global_pooling"] == "False" else 1)
    plain = {
        "Relu": lambda: jnp.maximum(x, 0),
        "Sigmoid": lambda: 1 / (1 + jnp.exp(-x)),
        "Concat": lambda: jnp.concatenate(inputs, 3),
        "Add": lambda: inputs[0] + inputs[1],
        "Mul": lambda: math.prod(inputs[1:], start=inputs[0]),
        "Dropout": lambda: x,
    }
    return plain[op]()


def test_the_graph_of_the_table(table):
    network, rows = table
    net = random_state(abstract(lambda rngs: NARROW[network](size=48, embedding=7, rngs=rngs)))
    layers = layers_of(network, net)
    photo = random(1, 48, 48, 3)
    values = {f"mulscalar{k}_second": factor for k, factor in enumerate(FACTORS, 1)}
    values["mulscalar0"] = photo
    for row in rows[rows.index(next(r for r in rows if r["name"] == "mulscalar0")) + 1 :]:
        if row["op"] != "Constant":
            inputs = [values[name] for name in row["inputs"] if name in values]
            values[row["name"]] = node(row, layers.get(row["name"]), inputs)
    embedding, taps = net(photo)
    for name, found in zip(
        [*stages(network, rows), "fc1"], [*taps.values(), embedding], strict=True
    ):
        scale = np.abs(values[name]).max()
        np.testing.assert_allclose(found, values[name], rtol=0, atol=1e-4 * scale, err_msg=name)
    assert np.abs(embedding).max() > 0.1


# The small networks.


@pytest.mark.parametrize("network", SMALL)
def test_budget(network):
    """What a CPU can train: multiply-adds, weights, channels in sixteens, the stem halves."""
    calls, taps = traced(network)
    shapes = {path: v.shape for path, v in abstract_params(network).items()}
    dense = math.prod(shapes.get("head/kernel") or shapes["head/dense/kernel"])
    # of a convolution [K,L,I,O], or [K,L,C] for a depthwise one: K L (I) for every output number
    convolved = sum(
        math.prod(kernel[: 3 if len(kernel) == 4 else 2]) * math.prod(output)
        for kernel, _, _, output in calls
    )
    assert 20e6 < convolved + dense < 35e6 and dense <= 300e3
    assert 250e3 < sum(map(math.prod, shapes.values())) < 620e3
    assert all(side <= 56 and channels % 16 == 0 for _, side, _, channels in taps)
    assert taps[-1][1] in (4, 6, 7)
    spec = NETWORKS[network]
    assert (spec.embedding, spec.size, spec.layout) == (128, 112, "")


@pytest.mark.parametrize("network", SMALL)
def test_untrained_networks_compute(network):
    net = NETWORKS[network].build(nnx.Rngs(0))
    photos = random(2, 112, 112, 3)
    embedding = nnx.jit(lambda net, x: net(x)[0])(net, photos)
    assert embedding.shape == (2, 128) and np.isfinite(embedding).all()
    assert np.abs(embedding[0] - embedding[1]).max() > 1e-3 * np.abs(embedding).max()


@pytest.mark.parametrize("network", [*SMALL, *TABLES])
def test_train_and_eval_reach_every_batch_norm(network):
    net = nnx.merge(*_abstract(network))
    norms = [module for _, module in nnx.iter_modules(net) if isinstance(module, nnx.BatchNorm)]
    paths = [path for path in abstract_params(network) if path.endswith("/mean")]
    assert len(norms) == len(paths)
    for switch, running in ((lambda: None, True), (net.train, False), (net.eval, True)):
        switch()
        assert {norm.use_running_average for norm in norms} == {running}


def test_train_and_eval_switch_the_batch_statistics():
    net = random_state(abstract(lambda rngs: NARROW["mobilenet"](size=48, embedding=7, rngs=rngs)))
    photos = random(2, 48, 48, 3)
    call = nnx.jit(lambda net: net(photos)[0])

    def statistics():
        return jax.tree.map(np.asarray, nnx.state(net, nnx.BatchStat))

    before, first = statistics(), call(net)
    jax.tree.map(np.testing.assert_array_equal, statistics(), before)
    net.train()
    call(net)
    after = statistics()
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(moved))
    net.eval()
    assert not np.array_equal(call(net), first)
    jax.tree.map(np.testing.assert_array_equal, statistics(), after)


@pytest.mark.parametrize(("size", "stem_stride", "stages"), [(112, 2, 3), (50, 1, 2), (33, 2, 1)])
def test_ir_of_any_length(size, stem_stride, stages):
    """The head fits what strides leave, also of odd sides."""
    net = nnx.eval_shape(
        lambda: IR(
            (1,) * stages,
            size=size,
            widths=(16,) * stages,
            stem_stride=stem_stride,
            rngs=nnx.Rngs(0),
        )
    )
    photo = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    embedding, taps = nnx.eval_shape(lambda net, x: net(x), net, photo)
    assert embedding.shape == (1, 512) and len(taps) == stages + 1


@pytest.mark.parametrize("network", SMALL)
def test_weights_that_nobody_publishes(network):
    with pytest.raises(InputError, match=f"No published weights of network '{network}'"):
        translate(Path("weights.pth"), {"": {}}, network)


# The layers they need.


def check_equal(found, wanted, *args):
    """Values and all gradients."""

    @partial(jax.jit, static_argnums=0)
    def values_and_gradients(function, *args):
        y, vjp = jax.vjp(function, *args)
        return y, *vjp(jnp.sin(10 * y))

    results = (values_and_gradients(function, *args) for function in (found, wanted))
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape, np.float32))


@pytest.mark.parametrize(
    ("sides", "kernel", "stride", "padding"),
    [
        ((6, 5), (1, 7), 1, (1, 2)),
        ((6, 5), (7, 1), 1, (2, 1)),
        ((4, 5), (1, 3), 1, (0, 1)),
        ((4, 5), (3, 1), 1, (1, 0)),
        ((5, 6), (5, 5), 1, 2),
        ((7, 9), (3, 3), 2, 0),
        ((8, 7), (3, 3), 2, (0, 0)),
        ((7, 8), (3, 3), 2, 1),
        ((7, 7), (3, 3), 2, (1, 0)),
        ((8, 9), (1, 3), 2, (0, 1)),
    ],
)
def test_convolutions(sides, kernel, stride, padding):
    rows, columns = (padding, padding) if isinstance(padding, int) else padding

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(rows, rows), (columns, columns)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def ours(x, kernel):
        return convolution(x, kernel, stride, padding)

    check_equal(ours, plain, random(2, *sides, 3), random(*kernel, 3, 4))


@pytest.mark.parametrize("sides", [(7, 9), (8, 5), (3, 4)])
def test_pools(sides):
    x = random(2, *sides, 3)

    def plain(start, function, strides, pads):
        return lambda x: lax.reduce_window(x, start, function, (1, 3, 3, 1), strides, pads)

    check_equal(max_pool, plain(-jnp.inf, lax.max, (1, 2, 2, 1), "VALID"), x)
    summed = plain(0.0, lax.add, (1, 1, 1, 1), "SAME")
    check_equal(mean_pool, lambda x: summed(x) / 9, x)


def test_a_fixed_gamma_is_no_weight():
    norm = batch_norm(4, epsilon=1e-3, scale=False, rngs=nnx.Rngs(0))
    norm.var[...], norm.bias[...] = jnp.full(4, 0.5), jnp.arange(4.0)
    x = random(2, 3, 3, 4)
    wanted = x / np.sqrt(0.501) + jnp.arange(4.0)[None, None, None]
    np.testing.assert_allclose(norm(x), wanted, rtol=1e-5, atol=1e-6)
    assert norm.scale is None and len(jax.tree.leaves(nnx.state(norm, nnx.Param))) == 1
