"""Table 6 on a tiny world: the numbers of the study's counts, clean and masked galleries."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from opom_jax.masks.generate import Settings
from opom_jax.tables import diversity, published
from opom_jax.tables.diversity import table_6
from opom_jax.tables.rates import resampled
from opom_jax.tables.sheet import Sheet
from opom_jax.tables.study import Masks

TARGETS = "ACD"
BRIEF = Settings(method="fi_uap", steps=2)
BLACK_BOXES = {"A": [1, 2], "B": [0, 1, 2]}


@pytest.fixture(autouse=True, scope="module")
def brief():
    """Masks that are quickly compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "Settings", lambda: BRIEF)
        yield


@pytest.fixture(scope="module")
def sixth(study, options) -> Sheet:
    return table_6(study, options)


def top_1(study, surrogate: str, count: int) -> np.ndarray:
    """f64[targets,2,masks] in percent."""
    masks = Masks(surrogate, BRIEF, diverse=count)
    found = [study.found_among_masked(masks, target).sum(2) for target in TARGETS]
    return np.array([100 - 100 * counts[..., 1] / counts[..., 0] for counts in found])


def shown(rates: np.ndarray, error: str = "") -> str:
    """Mean, its error, and how far masks are apart."""
    mean, count = sum(rates) / len(rates), len(rates)
    spread = (sum((rates - mean) ** 2) / max(1, count - 1)) ** 0.5
    return f"{mean:.1f}{error}" if spread == 0 else f"{mean:.1f}{error} [{spread:.1f}]"


def errors(study, surrogate: str, count: int) -> list[str]:
    """Of the means over masks and black boxes, M-O and M-M: people drawn anew."""
    masks = Masks(surrogate, BRIEF, diverse=count)
    found = np.array([study.found_among_masked(masks, TARGETS[t]) for t in BLACK_BOXES[surrogate]])
    return [f" ± {resampled(found[:, g].swapaxes(0, 1)).std():.1f}" for g in (0, 1)]


def test_the_methods_settings_are_those_of_table_2(study, options, monkeypatch):
    asked = []
    monkeypatch.setattr(diversity, "Settings", Settings)
    monkeypatch.setattr(
        type(study), "found_among_masked", lambda _, masks, t: asked.append((masks, t)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        table_6(study, options)
    assert asked == [(Masks("A", Settings(method="convex_hull"), diverse=1), "A")]


def test_rows_and_heads(sixth):
    rows = [("A", "n_M=1"), ("A", "n_M=2"), ("B", "n_M=1"), ("B", "n_M=2")]
    assert [tuple(line[:2]) for line in sixth.lines] == rows
    assert {len(line) for line in sixth.lines} == {len(sixth.head)} == {2 + 2 * 5}
    assert sixth.head[2:6] == ["A M-O", "A M-M", "C M-O", "C M-M"]


def test_cells_are_rates_of_the_counts(study, sixth):
    for surrogate, name, *cells in sixth.lines:
        top = top_1(study, surrogate, int(name.removeprefix("n_M=")))
        stars = ["*" if surrogate == target else "" for target in TARGETS]
        numbers = [shown(top[t, g]) + stars[t] for t in range(3) for g in (0, 1)]
        mean, error = top[BLACK_BOXES[surrogate]].mean(0), errors(study, surrogate, len(top[0, 0]))
        means = [shown(mean[g], error[g]) for g in (0, 1)]
        assert cells == [*numbers, *means, "", ""]
    assert any("[" in cell for cell in sixth.lines[1]) and "[" not in "".join(sixth.lines[0])


def test_values_are_those_of_every_mask(study, sixth):
    assert tuple(sixth.columns) == ("surrogate", "masks", "target", "measure", "mask", "top1")
    assert len(sixth.values) == 2 * 3 * 2 * (1 + 2)
    measures = {"M-O": 0, "M-M": 1}
    for surrogate, count, target, measure, mask, rate in sixth.values:
        top = top_1(study, surrogate, count)
        assert rate == top[TARGETS.index(target), measures[measure], mask]
    assert len({rate for *_, rate in sixth.values}) > 5


def test_bars_are_the_means(study, sixth):
    figure = Figure()
    sixth.draw(figure)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    means = [top_1(study, s, n)[BLACK_BOXES[s]].mean((0, 2)) for s in "AB" for n in (1, 2)]
    assert heights == pytest.approx([*np.array(means).T.ravel()])


def test_published_means_are_beside_them(study, options):
    known = study.of(study.world._replace(surrogates={"ArcFace": study.world.surrogates["A"]}))
    sheet = table_6(known, options._replace(surrogates=("ArcFace",), counts=(1, 2)))
    papers = [published.mean(6, "ArcFace", "n_M=1", measure) for measure in ("m-o", "m-m")]
    assert sheet.lines[0][-2:] == [f"{mean:.1f}" for mean in papers]
    assert sheet.lines[1][-2:] == ["", ""]
