"""Figure 6 on a tiny world: the study's rates, and times of what is made for new photos only."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.tables import efficiency
from opom_jax.tables.efficiency import figure_6
from opom_jax.tables.protection import own
from opom_jax.tables.rates import rates
from opom_jax.tables.study import Masks


@pytest.fixture
def brief(monkeypatch):
    """Two steps that show in the tiny world."""
    for name, attack in specific.METHODS.items():
        short = dataclasses.replace(attack, steps=2, step_size=8.0)
        monkeypatch.setitem(specific.METHODS, name, short)


def test_protection_and_time(study, options, brief, monkeypatch):
    monkeypatch.setattr(efficiency, "NEW", 4)
    sheet, methods = figure_6(study, options), efficiency.KINDS
    rows = [(kind, name) for kind, names in methods.items() for name in names]
    rows += [("image-specific", name) for name in laboratory.IMAGE_SPECIFIC]
    assert [tuple(line[:2]) for line in sheet.lines] == rows
    for (_, name, mean, error, seconds), line in zip(sheet.values, sheet.lines, strict=True):
        settings = laboratory.IMAGE_SPECIFIC.get(name) or own(name, options)
        masks = Masks("A", settings, also=("B",) if name == "LowKey" else ())
        found = np.array([[study.found(masks, target) for target in "ACD"]])
        wanted = rates(found, (False, True, True))
        assert (mean, error) == (wanted.mean[0], wanted.error) and seconds > 0
        assert line[2:] == [f"{mean:.1f} ± {error:.1f}", f"{seconds:.3g}"]
    times = [values[-1] for values in sheet.values]
    assert len(set(times[:6])) == 1 and len(set(times[6:])) == 3  # masks of people are only added
    alone = study.masks(Masks("A", "lowkey"))
    assert np.abs(alone - study.masks(Masks("A", "lowkey", also=("B",)))).max() > 1
    assert "GD-UAP ended after at most 2 steps, GAP after 1 epochs." in sheet.notes
    assert sheet.head[-1] == "s for 4 new photos" and "Surrogate A" in sheet.notes[0]
    figure = Figure()
    sheet.draw(figure)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert {text.get_text() for text in axes.texts} == {name for _, name in rows}
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [*methods, "image-specific"]


def test_the_median_time_leaves_the_first_call_out(monkeypatch):
    """Calls that last 100, 3, 1 and 2 seconds by a clock of their own."""
    clock, lasting = [0.0], iter([100, 3, 1, 2])

    def program():
        clock[0] += next(lasting)

    monkeypatch.setattr(efficiency, "perf_counter", lambda: clock[0])
    assert efficiency._seconds(program) == 2
    assert next(lasting, None) is None


def test_adding_a_mask_is_timed_without_drawing_it(study, options, monkeypatch):
    order = []
    monkeypatch.setattr(efficiency, "_seconds", lambda program: program())
    monkeypatch.setattr(
        efficiency, "apply_mask", lambda new, mask: order.append((len(new), mask.shape))
    )
    drawing = laboratory.random_masks
    monkeypatch.setattr(laboratory, "random_masks", lambda *a: order.append("drawn") or drawing(*a))
    monkeypatch.setattr(efficiency, "_rates", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        figure_6(study, options)
    assert order == ["drawn", (12, (16, 16, 3))]
