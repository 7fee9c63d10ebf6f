"""evaluate with pairs: its files and table against counting pair by pair."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from opom_jax.networks import recognizer

PAIRS = [
    ("a/1.png", "a/0.png", 1),
    ("b/2.png", "b/3.png", 1),
    ("c/3.png", "c/1.png", 1),
    ("a/1.png", "b/2.png", 0),  # the second photo is another pair's first
    ("b/2.png", "c/1.png", 0),
    ("c/3.png", "a/0.png", 0),
    ("c/0.png", "a/1.png", 0),  # of the photos that made the mask
]
CLOSE = 1e-6  # networks with random weights find all people alike


@pytest.fixture
def workdir(tmp_path, monkeypatch) -> Path:
    """Random masks of three people."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(3)
    (tmp_path / "run" / "masks").mkdir(parents=True)
    for k in range(3):
        mask = rng.uniform(-60, 60, (3, 112, 112)).astype(np.float32)
        np.save(tmp_path / "run" / "masks" / f"mask_id{k}.npy", mask)
    return tmp_path / "run"


@pytest.fixture
def pairs(workdir) -> Path:
    path = workdir.parent / "pairs.txt"
    path.write_text("".join(f"{one} {two} {same}\n" for one, two, same in PAIRS))
    return path


def similarities(world, folder: Path, workdir: Path) -> dict[str, np.ndarray]:
    """Row -> cosine of every pair, by one photo after another."""
    network = recognizer.load(folder)
    embed = jax.jit(network.embed)

    def unit(name, mask=None):
        pixels = np.array(Image.open(world.people / name), np.float64)
        if mask is not None:
            pixels = np.trunc(np.clip(pixels + mask.transpose(1, 2, 0), 0, 255))
        feature = np.asarray(embed(network.params, pixels[None].astype(np.float32)))[0]
        return feature.astype(np.float64) / np.linalg.norm(feature.astype(np.float64))

    masks = {name: np.load(workdir / f"masks/mask_id{k}.npy") for k, name in enumerate("abc")}
    return {
        "none": np.array([unit(one) @ unit(two) for one, two, _ in PAIRS]),
        "masked": np.array([unit(one, masks[one[0]]) @ unit(two) for one, two, _ in PAIRS]),
    }


def test_results_are_those_of_counting(world, opom, workdir, pairs):
    answer = opom(*world.evaluate(workdir), f"--config.data.pairs={pairs}")
    assert answer.code == 0
    results = json.loads((workdir / "verification.json").read_text())
    assert set(results) == {"network", "other"}
    same = np.array([pair[2] for pair in PAIRS], bool)
    for folder in (world.network, world.other):
        wanted, found = similarities(world, folder, workdir), results[folder.name]
        assert (found["genuine_pairs"], found["impostor_pairs"]) == (3, 4)
        assert np.abs(wanted["none"] - wanted["masked"]).max() > 10 * CLOSE  # masks do something
        highest = wanted["none"][~same].max()  # with four impostors none may pass
        for rate in ("0.1", "1", "10"):
            assert found["thresholds"][rate] == pytest.approx(highest, abs=CLOSE)
        for row, cosines in wanted.items():
            own, others = cosines[same], cosines[~same]
            assert found[row]["genuine"] == pytest.approx(own.mean(), abs=CLOSE)
            assert found[row]["impostor"] == pytest.approx(others.mean(), abs=CLOSE)
            assert found[row]["auc"] == pytest.approx((own[:, None] > others).mean())
            assert found[row]["tar@10%"] == pytest.approx(100 * (own > highest + CLOSE).mean())
            assert found[row]["far@10%"] == pytest.approx(100 * (others > highest + CLOSE).mean())
        check_curves(workdir / f"roc_{folder.name}.csv", wanted, same)

    first, second = answer.out.split("\n\n")[:2]
    assert first.startswith("| protection") and second.startswith(
        "| verification | network | other |"
    )
    assert f"| {results['network']['masked']['genuine']:.3f} | " in second
    assert "0.1 %, % | " in second and "4 pairs of two people" in answer.out
    assert "\nin 1 of 7 pairs the mask was made of the photo that it is on" in answer.out


def check_curves(path: Path, wanted: dict[str, np.ndarray], same: np.ndarray) -> None:
    with open(path, newline="") as file:
        head, first, *lines = csv.reader(file)
    assert head == ["threshold", "far_none", "tar_none", "far_masked", "tar_masked"]
    assert first == ["inf", "0.0", "0.0", "0.0", "0.0"]
    gaps = np.diff(np.sort(np.concatenate(list(wanted.values()))))
    assert len(lines) == 2 * len(same) and gaps.min() > 2 * CLOSE  # no ties
    for line in np.array(lines, float):
        threshold, *shares = line
        counted = [
            (own[of] >= threshold - CLOSE).mean() for own in wanted.values() for of in (~same, same)
        ]
        assert shares == pytest.approx(counted)


def test_without_pairs_nothing_changes(world, opom, workdir, pairs):
    alone = opom(*world.evaluate(workdir))
    kept = ("results.json", "results.csv", "people.csv")
    before = {name: (workdir / name).read_bytes() for name in kept}
    assert not (workdir / "verification.json").exists() and "verification" not in alone.out
    assert opom(*world.evaluate(workdir), f"--config.data.pairs={pairs}").code == 0
    assert {name: (workdir / name).read_bytes() for name in kept} == before


def test_diverse_masks(world, opom, workdir, pairs):
    """All pairs under every mask count."""
    command = [*world.evaluate(workdir), f"--config.data.pairs={pairs}"]
    masks, found, zero = workdir / "masks", {}, np.zeros((3, 112, 112), np.float32)
    for k in range(3):
        np.save(masks / f"mask_id{k}_0.npy", np.load(masks / f"mask_id{k}.npy"))
        np.save(masks / f"mask_id{k}_1.npy", zero)
    for name, config in (("single", "{}"), ("diverse", '{"diverse": 2}')):
        (workdir / "config.json").write_text(config)
        assert opom(*command).code == 0
        found[name] = json.loads((workdir / "verification.json").read_text())["network"]
    single, diverse = found["single"], found["diverse"]
    assert diverse["none"] == single["none"] and diverse["thresholds"] == single["thresholds"]
    assert single["masked"]["genuine"] != single["none"]["genuine"]
    for key in ("genuine", "impostor", "tar@10%", "far@1%"):
        mean = (single["masked"][key] + single["none"][key]) / 2
        assert diverse["masked"][key] == pytest.approx(mean)


def test_photos_of_lfw(world, opom, workdir):
    """Under a root of their own, known by their folder's name; the masks are zero."""
    for k in range(3):
        np.save(workdir / "masks" / f"mask_id{k}.npy", np.zeros((3, 112, 112), np.float32))
    for name in "abc":
        (workdir.parent / "lfw" / name).mkdir(parents=True)
        for k in range(2):
            photo = workdir.parent / "lfw" / name / f"{name}_{k + 1:04d}.png"
            photo.write_bytes((world.people / name / f"{k}.png").read_bytes())
    (workdir.parent / "pairs.txt").write_text("1\t2\na\t1\t2\nb\t1\t2\na\t1\tb\t2\nc\t2\ta\t1\n")
    keys = {"pairs": "pairs.txt", "root": "lfw"}
    flags = [f"--config.data.{key}={workdir.parent / name}" for key, name in keys.items()]
    answer = opom(*world.evaluate(workdir), *flags, "--config.data.pairs_format=lfw")
    assert answer.code == 0 and "mask was made of" not in answer.out
    found = json.loads((workdir / "verification.json").read_text())["network"]
    assert found["genuine_pairs"] == found["impostor_pairs"] == 2
    assert found["none"] == found["masked"]
