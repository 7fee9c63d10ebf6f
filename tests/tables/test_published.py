"""The paper's numbers: all there, as printed, and in agreement with one another."""

import csv
from collections import Counter

import pytest

from opom_jax import laboratory
from opom_jax.tables import published

KEY = ("table", "surrogate", "method", "target", "measure")


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    with published.FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_cell_once(lines):
    keys = [tuple(line[name] for name in KEY) for line in lines]
    assert len(set(keys)) == len(keys)
    # 3 surrogates, 6 targets, 2 measures; 8 methods, 4 with DFANet, 3 numbers of masks
    assert Counter(key[0] for key in keys) == {"2": 288, "3": 288, "4": 144, "5": 144, "6": 108}
    assert set(Counter((table, row, method) for table, row, method, *_ in keys).values()) == {12}


def test_names_are_those_of_the_laboratory(lines):
    methods = {line["method"] for line in lines if line["table"] != "6"}
    assert methods == {*laboratory.METHODS, *laboratory.COMPARED}
    assert {line["method"] for line in lines if line["table"] == "6"} == {
        *("n_M=1", "n_M=5", "n_M=10")
    }
    assert {line["surrogate"] for line in lines} == {*laboratory.SURROGATES}
    assert {line["target"] for line in lines} == {*laboratory.TARGETS}


@pytest.mark.parametrize(
    "cell, printed",
    [
        ((2, "Softmax", "GD-UAP", "ArcFace", "top1"), 6.3),
        ((2, "Softmax", "OPOM-ConvexHull", "Inception-ResNet", "top5"), 47.2),
        ((2, "ArcFace", "FI-UAP+", "SFace", "top5"), 75.7),
        ((2, "CosFace", "FI-UAP-all", "MobileNet", "top1"), 49.6),
        ((3, "ArcFace", "FI-UAP-all", "MobileNet", "top1"), 58.8),
        ((3, "CosFace", "GAP", "SENet", "top5"), 36.9),
        ((3, "CosFace", "OPOM-ConvexHull", "MobileNet", "top1"), 53.0),
        ((4, "Softmax", "OPOM-AffineHull", "CosFace", "top1"), 73.8),
        ((4, "CosFace", "OPOM-ConvexHull", "SENet", "top5"), 73.4),
        ((5, "Softmax", "OPOM-ClassCenter", "CosFace", "top1"), 54.2),
        ((5, "ArcFace", "FI-UAP", "Inception-ResNet", "top5"), 37.6),
        ((6, "Softmax", "n_M=1", "CosFace", "m-m"), 9.3),
        ((6, "ArcFace", "n_M=5", "ArcFace", "m-o"), 78.2),
        ((6, "CosFace", "n_M=10", "CosFace", "m-o"), 54.6),
        ((2, "Softmax", "FIM", "ArcFace", "top1"), None),
        ((4, "Softmax", "GAP", "ArcFace", "top1"), None),
        ((2, "Softmax", "GAP", "ArcFace", "m-o"), None),
    ],
)
def test_cells_read_by_eye(cell, printed):
    assert published.rate(*cell) == printed


def test_means_over_the_targets():
    of_convex_hull = (78.0 + 70.2 + 76.1 + 79.2 + 82.9 + 58.7) / 6
    assert published.mean(2, "Softmax", "OPOM-ConvexHull", "top1") == pytest.approx(of_convex_hull)
    assert published.mean(4, "Softmax", "GAP", "top1") is None


def test_gains_of_tables_4_and_5_are_over_2_and_3(lines):
    gains = {tuple(line[name] for name in KEY): line for line in lines if line["gain"]}
    assert len(gains) == 288
    for (table, *rest), line in gains.items():
        before = published.rate(int(table) - 2, *rest)
        assert float(line["value"]) - before == pytest.approx(float(line["gain"]), abs=0.15)


def test_one_mask_of_table_6_is_that_of_table_2(lines):
    for line in (line for line in lines if (line["method"], line["measure"]) == ("n_M=1", "m-o")):
        own = line["surrogate"], "OPOM-ConvexHull", line["target"], "top1"
        assert published.rate(2, *own) == float(line["value"])
    spread = [line for line in lines if line["spread"]]
    assert {(line["table"], line["method"]) for line in spread} == {("6", "n_M=5"), ("6", "n_M=10")}
    assert len(spread) == 72
