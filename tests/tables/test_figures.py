"""Figures 2, 4, 7 and 8 on a tiny world: numbers against the study's counts and cosines."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from opom_jax.laboratory import METHODS
from opom_jax.masks.apply import apply_mask
from opom_jax.masks.generate import Settings
from opom_jax.tables import figures
from opom_jax.tables.figures import figure_2, figure_4, figure_8
from opom_jax.tables.films import Film
from opom_jax.tables.frames import figure_7
from opom_jax.tables.study import Masks
from opom_jax.tables.video import cosines, masks_by_count

OTHERS = {"A": "CD", "B": "ACD"}  # the black boxes
HULL = Settings(method="convex_hull")


def drawn(sheet):
    figure = Figure()
    sheet.draw(figure)
    (axes,) = figure.axes
    return axes


def rate(found: np.ndarray) -> float:
    """Top-1 protection in percent."""
    tests, first, *_ = found.sum(0)
    return 100 - 100 * first / tests


# Figure 2.


def test_universality_and_transferability(study, options, monkeypatch):
    methods = {name: METHODS[name] for name in ("FI-UAP", "FI-UAP+")}
    monkeypatch.setattr(figures, "METHODS", methods)
    sheet, photos = figure_2(study, options), study.world.photos
    rows = [(s, m) for s in "AB" for m in methods]
    assert [tuple(line[:2]) for line in sheet.lines] == rows
    assert [tuple(values[:2]) for values in sheet.values] == rows
    itself = study.of(study.world._replace(targets=study.world.surrogates))
    seen = photos._replace(
        probes=np.concatenate([*photos.train]), counts=(photos.train.shape[1],) * 5
    )
    same_photos = study.of(study.world._replace(photos=seen))
    for (surrogate, name, across, transfer), line in zip(sheet.values, sheet.lines, strict=True):
        masks = Masks(surrogate, Settings(method=methods[name]))
        assert across == rate(itself.found(masks, surrogate))
        others = [rate(same_photos.found(masks, other)) for other in OTHERS[surrogate]]
        assert transfer == pytest.approx(sum(others) / len(others))
        assert line[2:] == [f"{across:.1f}", f"{transfer:.1f}"]
    points = [axes.get_offsets() for axes in drawn(sheet).collections]
    by_method = [[v[2:] for v in sheet.values if v[1] == name] for name in methods]
    np.testing.assert_allclose(points, by_method)


def test_figure_2_has_every_method_of_one_person(study, options, monkeypatch):
    asked = []
    monkeypatch.setattr(
        type(study), "found", lambda _, masks, t: asked.append(masks) or np.array([[2, 1, 1, 1]])
    )
    sheet = figure_2(study, options._replace(surrogates=("B",)))
    assert [line[1] for line in sheet.lines] == list(METHODS)
    assert set(asked) == {Masks("B", Settings(method=method)) for method in METHODS.values()}


# Figure 4.


def test_similarities_of_pairs(study, options):
    sheet = figure_4(study, options)
    hulls = [("A", "OPOM-ConvexHull"), ("B", "OPOM-ConvexHull")]
    rows = [("", "no mask"), ("", "random noise"), *hulls]
    assert [tuple(line[:2]) for line in sheet.lines] == rows
    assert {len(line) for line in sheet.lines} == {len(sheet.head)} == {2 + 2 * 3}
    assert sheet.columns[-4:] == ["tar@0.001", "tar@0.01", "tar@0.1", "auc"]
    masks = [None, Masks("", 0), Masks("A", HULL), Masks("B", HULL)]
    cells = {tuple(line[:2]): line[2:] for line in sheet.lines}
    for k, (surrogate, name, target, *numbers) in enumerate(sheet.values):
        same, others = study.pairs(masks[k // 3], target)
        strangers = study.pairs(None, target)[1]  # the threshold knows no masks
        assert (surrogate, name, target) == (*rows[k // 3], "ACD"[k % 3])
        accepted = []
        for most in (0.001, 0.01, 0.1):
            allowed = int(most * len(strangers) + 1e-9)  # strangers that may pass
            bar = np.sort(strangers)[::-1][allowed]
            accepted.append(100 * np.mean(same > bar))
        alike = np.mean(same[:, None] > others) + np.mean(same[:, None] == others) / 2
        assert numbers == pytest.approx([same.mean(), same.std(), *accepted, alike])
        star = "*" if surrogate == target else ""
        own = cells[surrogate, name][2 * (k % 3) :][:2]
        assert own == [f"{same.mean():.3f}{star}", f"{accepted[0]:.1f}{star}"]
    bars = drawn(sheet).patches
    heights = np.array([bar.get_height() for bar in bars]).reshape(4, 3)
    np.testing.assert_allclose(heights.ravel(), [values[3] for values in sheet.values])


# Figure 7.


def test_frames_of_a_film(study, options):
    draw = np.random.default_rng(0)
    parts = (draw.integers(0, 256, (n, 16, 16, 3), np.uint8) for n in (2, 3, 9))
    one = Film("one", *parts)
    sheet = figure_7(study, options._replace(films=lambda world: [one]))
    assert [int(line[0]) for line in sheet.lines] == [0, 2, 3, 5, 6, 8]
    network = study.world.surrogates["A"]
    (mask,) = masks_by_count(one, network, HULL, (3,))
    seen = [one.frames, apply_mask(one.frames, mask)]
    found = {t: cosines(study.world.targets[t], one.prototype, np.stack(seen)) for t in "CD"}
    assert sheet.values == [
        ["one", k, t, *found[t][:, k]] for t in "CD" for k in range(len(one.frames))
    ]
    means = np.mean([*found.values()], 0)
    assert sheet.lines[2] == ["3", f"{means[0, 3]:.3f}", f"{means[1, 3]:.3f}"]
    figure = Figure()
    sheet.draw(figure)
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(pictures[1], one.frames[2])
    np.testing.assert_array_equal(pictures[6 + 1], seen[1][2])


# Figure 8.


def test_films(study, options, monkeypatch):
    """What is computed has tests of its own (test_video.py)."""
    draw = np.random.default_rng(0)
    films = [
        Film(name, *(draw.integers(0, 256, (n, 16, 16, 3), np.uint8) for n in (2, 4, frames)))
        for name, frames in (("one", 5), ("two", 3))
    ]
    made, asked = {name: draw.uniform(-1, 1, (4, 8)) for name in "CD"}, []

    def similarities(*arguments):
        asked.append(arguments)
        return made

    monkeypatch.setattr(figures, "similarities", similarities)
    sheet = figure_8(study, options._replace(films=lambda world: films))
    world = study.world
    others = {name: world.targets[name] for name in "CD"}  # not the white box
    assert asked == [(films, world.surrogates["A"], others, Settings(), (1, 2, 3), 0.0)]
    assert sheet.head == ["Target", "0 photos", "1 photos", "2 photos", "3 photos"]
    assert sheet.lines == [
        [name, *(f"{row.mean():.3f} ± {row.std():.3f}" for row in made[name])] for name in "CD"
    ]
    assert sheet.values == [
        [name, photos, made[name][photos].mean(), made[name][photos].std(), 8]
        for name in "CD"
        for photos in range(4)
    ]
    assert "2 films, 8 frames, surrogate A" in sheet.notes[0]
    curves = [line.get_ydata() for line in drawn(sheet).lines if len(line.get_xdata()) == 4]
    assert any(np.allclose(curve, made["C"].mean(1)) for curve in curves)
