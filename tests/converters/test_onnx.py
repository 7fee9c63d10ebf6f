"""A network that torch exported to ONNX, as the graph that the file states and as our family."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from converters.convert import convert_graph, translate
from opom_jax.networks import recognizer
from opom_jax.networks.ir import IR
from opom_jax.networks.mobilefacenet import MobileFaceNet
from opom_jax.networks.registry import NETWORKS, Spec
from tests.agreement import check_agree

torch = pytest.importorskip("torch")
from tests import torch_twins  # noqa: E402
from tests.networks.test_twins import drawn  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # torch's older exporter, which needs no package but onnx
    pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]

SIZE = 48
STAGES = ((2, 8, 2, 2), (4, 16, 1, 2), (2, 16, 1, 1), (4, 24, 1, 2))
WIDTHS = (16, 16, 32, 48)


class Case(NamedTuple):
    """A twin, our family of the same numbers, what the registry lists it as, and its scaling."""

    twin: Any
    spec: Spec
    gain: float
    scaling: str


def like(network, build, **changes) -> Spec:
    spec = dataclasses.replace(NETWORKS[network], build=build, size=SIZE, crop=None)
    return dataclasses.replace(spec, **changes)


CASES = {
    "ir_se": Case(
        partial(torch_twins.IR, (1, 2, 1, 1), size=SIZE, se=True, widths=WIDTHS),
        like(
            "ir_se_50",
            lambda rngs: IR((1, 2, 1, 1), size=SIZE, se=True, widths=WIDTHS, rngs=rngs),
        ),
        0.5,
        "none",  # the twin scales its images itself
    ),
    "mobilefacenet": Case(
        partial(torch_twins.MobileFaceNetXiaoccer, STAGES, 16, 64, (3, 3)),
        like(
            "mobilefacenet_xiaoccer",
            lambda rngs: MobileFaceNet(STAGES, spatial=(3, 3), stem=16, middle=64, rngs=rngs),
        ),
        1.5,
        "(x-127.5)/128",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_graph_and_the_family_agree(case, monkeypatch, tmp_path):
    monkeypatch.setitem(NETWORKS, "narrow", case.spec)
    twin = case.twin().eval()
    arrays = drawn(twin, case.gain)
    twin.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()}, strict=False)
    path = tmp_path / "net.onnx"
    torch.onnx.export(twin, torch.zeros(1, 3, SIZE, SIZE), path, dynamo=False)
    graph = recognizer.load(convert_graph(path, tmp_path / "graph", scaling=case.scaling))
    family = recognizer.recognizer("narrow", translate(Path("net"), {"": arrays}, "narrow"))
    assert graph.spec.embedding == family.spec.embedding
    check_agree(family, graph, SIZE)
