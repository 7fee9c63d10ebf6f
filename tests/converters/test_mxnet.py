"""The paper's targets from MXNet's files: into a family, and as the graph that the file states."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from converters import formats
from converters.convert import convert, convert_graph, translate, translate_graph
from converters.graphs import mxnet
from opom_jax.errors import InputError
from opom_jax.networks import mobilenet, recognizer
from opom_jax.networks.inception_resnet import STANDARD, InceptionResNet, Widths
from opom_jax.networks.mobilenet import MobileNet
from opom_jax.networks.registry import NETWORKS
from opom_jax.networks.resnet import ResNet
from tests import mxnet_twins
from tests.agreement import check_agree
from tests.converters import goodfiles

FILE = Path("net.params")
SIZE, EMBEDDING = 48, 7


def divided(widths, divisor):
    """Every number of a tuple of tuples."""
    if isinstance(widths, int):
        return widths // divisor
    return tuple(divided(w, divisor) for w in widths)


STEM = tuple((channels // 16, *shape) for channels, *shape in STANDARD.stem)
RESNET = partial(ResNet, widths=(16, 32, 64, 128))
# network -> (divisor of all widths, side of the last feature map, gain, our family so narrow)
NARROW = {
    "mobilenet": (
        *(8, 3, 2.0),
        partial(MobileNet, [(c // 8, stride) for c, stride in mobilenet.STANDARD], stem=4),
    ),
    "se_resnet_50": (4, 3, 1.0, partial(RESNET, se=True)),
    "resnet_50": (4, 3, 1.0, RESNET),
    "inception_resnet": (
        *(16, 4, 1.0),
        partial(InceptionResNet, Widths(STEM, *(divided(w, 16) for w in STANDARD[1:]))),
    ),
}


@pytest.fixture
def narrow(request, targets, monkeypatch):
    """(twin, its arrays) of a narrow network, which the registry has as "narrow"."""
    network = getattr(request, "param", "mobilenet")
    divisor, side, gain, family = NARROW[network]
    spec = dataclasses.replace(
        NETWORKS[network],
        build=lambda rngs: family(size=SIZE, embedding=EMBEDDING, rngs=rngs),
        embedding=EMBEDDING,
        size=SIZE,
    )
    monkeypatch.setitem(NETWORKS, "narrow", spec)
    rows = mxnet_twins.read_table(targets, network)
    twin = mxnet_twins.twin(rows, divisor=divisor, side=side, embedding=EMBEDDING)
    return twin, mxnet_twins.drawn(twin, gain)


def from_graph(symbol, parameters):
    options = {"symbol": symbol, "size": SIZE, "output": "fc1"}
    return recognizer.recognizer(*translate_graph(parameters, **options))


def from_family(parameters):
    return recognizer.recognizer(
        "narrow", translate(parameters, formats.read(parameters), "narrow")
    )


@pytest.mark.parametrize(
    "narrow",
    [*list(NARROW)[:3], pytest.param("inception_resnet", marks=pytest.mark.slow)],
    indirect=True,
)
def test_the_graph_and_the_family_agree(narrow, tmp_path):
    """What the symbol file states, our family computes; fixed gammas are stored as others."""
    symbol, parameters = mxnet_twins.write(tmp_path, *narrow)
    check_agree(from_family(parameters), from_graph(symbol, parameters), SIZE)


def test_from_files_to_folders(narrow, tmp_path):
    symbol, parameters = mxnet_twins.write(tmp_path, *narrow)
    family = convert(parameters, "narrow", tmp_path / "family")
    options = {"symbol": symbol, "size": SIZE, "output": "fc1"}
    graph = convert_graph(parameters, tmp_path / "graph", **options)
    one, other = recognizer.load(family), recognizer.load(graph)
    assert (one.spec.size, other.spec.size, other.spec.embedding) == (SIZE, SIZE, EMBEDDING)
    check_agree(one, other, SIZE)


@pytest.mark.parametrize("network", NARROW)
def test_every_name_and_shape(targets, network):
    """Of the published table at full size: nothing missing, unexpected or misshapen."""
    twin = mxnet_twins.twin(mxnet_twins.read_table(targets, network))
    groups: dict[str, dict] = {"arg": {}, "aux": {}}
    fixed, kept = 0, 0
    for name, shape, _ in twin.keys:
        group, _, rest = name.partition(":")
        groups[group][rest] = np.broadcast_to(np.float32(0), shape)
    arrays = translate(targets, groups, network)
    attributes = {node["name"]: node["attrs"] for node in twin.symbol["nodes"]}
    for name, array in (groups["arg"] | groups["aux"]).items():
        node, leaf = name.rsplit("_", 1)
        fixed += (
            array.size if leaf == "gamma" and attributes[node].get("fix_gamma") == "True" else 0
        )
        kept += array.size if node != "fc7" else 0
    assert fixed > 0 and sum(array.size for array in arrays.values()) == kept - fixed


# What is not such a network.


def groups_of(arrays):
    """{group: {name: array}}."""
    found: dict[str, dict] = {"arg": {}, "aux": {}}
    for name, array in arrays.items():
        group, _, rest = name.partition(":")
        found[group][rest] = array
    return found


@pytest.fixture
def groups(narrow):
    return groups_of(narrow[1])


def refusal(groups):
    with pytest.raises(InputError) as caught:
        translate(FILE, groups, "narrow")
    return str(caught.value)


@pytest.mark.parametrize("name", ["fc1_gamma", "conv_3_dw_batchnorm_gamma"])
def test_a_fixed_gamma_is_named_and_dropped(groups, name):
    """Its values mean nothing, its shape does; those that are not fixed are weights."""
    wanted = translate(FILE, groups, "narrow")
    groups["arg"][name] = 2 * groups["arg"][name]
    found = translate(FILE, groups, "narrow")
    for path, array in wanted.items():
        np.testing.assert_array_equal(found[path], array)
    groups["arg"]["bn1_gamma"] = 2 * groups["arg"]["bn1_gamma"]
    found = translate(FILE, groups, "narrow")
    np.testing.assert_array_equal(found["head/bn/scale"], 2 * wanted["head/bn/scale"])
    groups["arg"][name] = groups["arg"][name][:-1]
    assert f" ! {name} " in refusal(groups)


def test_all_that_differs_is_listed(groups):
    del groups["aux"]["bn1_moving_var"], groups["arg"]["conv_1_relu_gamma"]
    groups["arg"]["fc8_weight"] = groups["arg"]["conv_15_dw_batchnorm_gamma"] = np.zeros(3)
    groups["arg"]["conv_2_dw_conv2d_weight"] = np.zeros((1, 4, 3, 3))
    assert refusal(groups).splitlines()[1:] == [
        " ! conv_2_dw_conv2d_weight (1, 4, 3, 3), wanted for body/0/depthwise/kernel (3, 3, 4)",
        " + conv_15_dw_batchnorm_gamma (3,)",
        " + fc8_weight (3,)",
        " - head/bn/var (128,)",
        " - stem_prelu/slope (4,)",
    ]


def test_a_symbol_file_of_another_network(narrow, tmp_path):
    """Three of the names, whole, and how many there are."""
    symbol, parameters = mxnet_twins.write(tmp_path, *narrow)
    kept = {"arg:fc1_weight": np.zeros((2, 2), np.float32)}
    goodfiles.params_file(parameters, kept)
    with pytest.raises(InputError, match="different networks .* give both files") as caught:
        mxnet.read(symbol, parameters, (SIZE, SIZE), "fc1")
    names = {node["name"] for node in json.loads(symbol.read_text())["nodes"]}
    listed = re.search(r"(\d+) are not there: (.*)\)", str(caught.value))
    assert listed and int(listed[1]) > 50
    assert len({name.strip("'") for name in listed[2].split(", ")} & names) == 3


def test_a_name_in_both_groups(groups):
    groups["arg"]["bn1_moving_var"] = groups["aux"]["bn1_moving_var"]
    assert "names an array twice" in refusal(groups)


def test_other_networks(groups, narrow, tmp_path):
    """Arrays of one family are no other's, and of MXNet's no torch layout's."""
    symbol, parameters = mxnet_twins.write(tmp_path, *narrow)
    for network in ("resnet_50", "inception_resnet", "mobilefacenet_lh185k"):
        with pytest.raises(InputError, match="does not fit network"):
            translate(parameters, groups, network)
    stored = json.loads(symbol.read_text())
    stored["nodes"][3]["op"] = "Correlation"
    symbol.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="'Correlation'"):
        mxnet.read(symbol, parameters, (SIZE, SIZE), "fc1")
