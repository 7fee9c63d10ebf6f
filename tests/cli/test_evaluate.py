"""evaluate: its files against the protocol in plain NumPy, masks from elsewhere, the cache."""

import csv
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from opom_jax.cli import evaluate
from opom_jax.evaluation import features
from opom_jax.files import locked
from opom_jax.networks import recognizer
from tests.cli.conftest import NETWORK, draw_weights, save_broken

PEOPLE, PROBES = "abc", 3
SETS = "probes", "distractors"
BATCH = 5  # divides neither the people nor the probes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of cached features, empty; networks see few images at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "BATCH", BATCH)
    return tmp_path / "cache" / "opom-jax" / "features"


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """Masks that another program made: no config.json, no metrics.jsonl."""
    rng = np.random.default_rng(1)
    (tmp_path / "run" / "masks").mkdir(parents=True)
    for k in range(len(PEOPLE)):
        mask = rng.uniform(-60, 60, (3, 112, 112)).astype(np.float32)
        np.save(tmp_path / "run" / "masks" / f"mask_id{k}.npy", mask)
    return tmp_path / "run"


@pytest.fixture
def seen(monkeypatch, opom) -> list[np.ndarray]:
    """Every batch of pixels that a network was shown."""
    batches: list[np.ndarray] = []
    build = evaluate.extractor

    def spying(network):
        def watched(stream):
            for pixels in stream:
                batches.append(pixels)
                yield pixels

        extract = build(network)
        return lambda stream, *out: extract(watched(stream), *out)

    monkeypatch.setattr(evaluate, "extractor", spying)
    return batches


def read_photos(folder: Path, first: int = 0) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())[first:]])


def apply(workdir: Path, probes: list[np.ndarray], rounding) -> list[np.ndarray]:
    """Masked probes u8[3,H,W,3] of each person, as the published evaluation stores them."""
    masked = []
    for k, photos in enumerate(probes):
        mask = np.load(workdir / "masks" / f"mask_id{k}.npy").transpose(1, 2, 0)
        masked.append(rounding(np.clip(photos + mask.astype(np.float64), 0, 255)).astype(np.uint8))
    return masked


def protocol(
    network, world, workdir, rounding=np.trunc, gallery=(), published=None
) -> dict[str, np.ndarray]:
    """Row -> tests and identifications at 1, 5, 10 of each person, i64[P,4], by nested loops;
    protected galleries have the masks of the folder `published`, or the probes' own."""
    loaded = recognizer.load(network)
    embed = jax.jit(loaded.embed)

    def unit(photos):
        found = np.asarray(embed(loaded.params, photos.astype(np.float32)), np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    probes = [read_photos(world.people / person, first=1) for person in PEOPLE]
    others = unit(read_photos(world.distractors))
    clean = [unit(photos) for photos in probes]
    masked = [unit(photos) for photos in apply(workdir, probes, rounding)]
    others_masked = [unit(photos) for photos in apply(published or workdir, probes, rounding)]
    rows = {"none": (clean, clean), "masked": (masked, clean), "protected": (masked, others_masked)}
    counts = {}
    for row in ("none", "masked", *gallery):
        people, targets = rows[row]
        counts[row] = np.zeros((len(PEOPLE), 4), int)
        for k, person in enumerate(people):
            for i, probe in enumerate(person):
                for j in range(PROBES):
                    if j == i:
                        continue
                    rank = np.sum(others @ probe > targets[k][j] @ probe)
                    counts[row][k] += [1, rank < 1, rank < 5, rank < 10]
    return counts


def read_people(workdir: Path) -> dict[tuple[str, str], np.ndarray]:
    """(target, row) -> i64[P,4] of people.csv."""
    with open(workdir / "people.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    found = {}
    for line in lines:
        assert line["name"] == PEOPLE[int(line["id"])]
        keys = "tests", "identified1", "identified5", "identified10"
        found.setdefault((line["target"], line["row"]), []).append([int(line[k]) for k in keys])
    return {key: np.array(counts) for key, counts in found.items()}


def rates(counts: np.ndarray) -> dict[str, float]:
    tests, *identified = counts.sum(0)
    keys = zip(("top1", "top5", "top10"), identified, strict=True)
    return {key: 100 * (1 - n / tests) for key, n in keys} | {"tests": tests}


def outputs(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workdir.iterdir() if path.is_file()}


def test_results_are_those_of_the_protocol(world, opom, elsewhere):
    answer = opom(*world.evaluate(elsewhere))
    assert answer.code == 0
    for warning, name in zip(answer.errors, ("network", "other"), strict=True):
        assert warning.startswith(f"warning: {name} does not find ")  # random networks find nobody
        assert "% even without masks" in warning
    results = json.loads((elsewhere / "results.json").read_text())
    people = read_people(elsewhere)
    assert set(results) == {"network", "other", "mean"} and len(people) == 4
    for network in (world.network, world.other):
        wanted = protocol(network, world, elsewhere)
        assert (wanted["masked"] != wanted["none"]).any()  # the masks do something
        for row, counts in wanted.items():
            np.testing.assert_array_equal(people[network.name, row], counts)
            assert results[network.name][row] == pytest.approx(rates(counts))
    for row in ("none", "masked"):
        pair = [results[name][row] for name in ("network", "other")]
        mean = {key: (pair[0][key] + pair[1][key]) / 2 for key in ("top1", "top5", "top10")}
        assert results["mean"][row] == pytest.approx(mean | {"tests": 2 * 18})

    with open(elsewhere / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    for line in table:
        stored = results[line.pop("target")][line.pop("row")]
        assert {key: float(value) for key, value in line.items()} == stored

    record = json.loads((elsewhere / "evaluation.json").read_text())
    cards = [json.loads((n / "card.json").read_text()) for n in (world.network, world.other)]
    digests = [card["weights_sha256"] for card in cards]
    assert record["targets"] == dict(zip(("network", "other"), digests, strict=True))
    assert record["data"]["people"] == str(world.people) and record["gallery"] == "clean"
    assert record["rounding"] == "truncate" and set(record["photos_sha256"]) == set(SETS)

    header, ruler, *lines, end = answer.out.splitlines()
    assert header == "| protection, % | network | other | mean |"
    assert ruler == "|---|---|---|---|"
    assert end == f"results: {elsewhere / 'results.json'}"
    for line, (row, k) in zip(lines, [(r, k) for r in wanted for k in (1, 5, 10)], strict=True):
        cells = " | ".join(f"{results[name][row][f'top{k}']:.1f}" for name in results)
        assert line == f"| {row}, Top-{k} | {cells} |"


def test_protected_gallery(world, opom, elsewhere):
    assert opom(*world.evaluate(elsewhere), "--config.gallery=protected").code == 0
    wanted = protocol(world.network, world, elsewhere, gallery=("protected",))
    assert (wanted["protected"] != wanted["masked"]).any()
    people = read_people(elsewhere)
    assert {row for _, row in people} == set(wanted)
    for row, counts in wanted.items():
        np.testing.assert_array_equal(people[world.network.name, row], counts)


def test_diverse_masks(world, opom, elsewhere):
    """Means over masks, each against the next one's gallery."""
    masks, alone = elsewhere / "masks", [elsewhere.parent / f"only{m}" for m in range(3)]
    rng = np.random.default_rng(2)
    for m, folder in enumerate(alone):
        (folder / "masks").mkdir(parents=True)
        for k in range(len(PEOPLE)):
            mask = rng.uniform(-60, 60, (3, 112, 112)).astype(np.float32)
            np.save(folder / "masks" / f"mask_id{k}.npy", mask)
            np.save(masks / f"mask_id{k}_{m}.npy", mask)
            (masks / f"mask_id{k}.npy").unlink(missing_ok=True)
    (elsewhere / "config.json").write_text('{"diverse": 3}')
    assert opom(*world.evaluate(elsewhere), "--config.gallery=protected").code == 0
    people, network = read_people(elsewhere), world.network.name
    single = [
        protocol(world.network, world, own, gallery=("protected",), published=alone[(m + 1) % 3])
        for m, own in enumerate(alone)
    ]
    np.testing.assert_array_equal(people[network, "none"], single[0]["none"])
    results = json.loads((elsewhere / "results.json").read_text())[network]
    for row in ("masked", "protected"):
        np.testing.assert_array_equal(people[network, row], sum(one[row] for one in single))
        mean = np.mean([rates(one[row])["top1"] for one in single])
        assert results[row]["top1"] == pytest.approx(mean)
        assert any((one[row] != single[0][row]).any() for one in single)

    (masks / "mask_id1_2.npy").unlink()
    answer = opom(*world.evaluate(elsewhere))
    assert answer.code == 2 and "mask_id1_2.npy is missing" in answer.errors[0]


@pytest.mark.parametrize("bias, wrong", [(0, "zero"), (1, "the same for all photos")])
def test_a_target_that_sees_nothing(world, opom, elsewhere, bias, wrong):
    """Its ranks would say that everybody is recognised."""
    broken = save_broken(elsewhere.parent / "broken", bias)
    answer = opom(*world.evaluate(elsewhere), f"--config.targets={broken}")
    assert (answer.code, answer.out) == (2, "")
    *warnings, line = answer.errors
    assert len(warnings) == 2  # of the other targets
    assert f"'broken' are {wrong}; convert or train it again." in line
    assert not (elsewhere / "results.json").exists()


def test_zero_masks_protect_as_none(world, opom, elsewhere):
    for path in (elsewhere / "masks").iterdir():
        np.save(path, np.zeros((3, 112, 112), np.float32))
    assert opom(*world.evaluate(elsewhere)).code == 0
    for rows in json.loads((elsewhere / "results.json").read_text()).values():
        assert rows["masked"] == rows["none"]


@pytest.mark.parametrize("rounding, reference", [("truncate", np.trunc), ("round", np.rint)])
def test_rounding(world, opom, seen, elsewhere, rounding, reference):
    flags = [f"--config.targets={world.network}", f"--config.rounding={rounding}"]
    command = [*world.evaluate(elsewhere)[:2], *world.evaluate(elsewhere)[3:], *flags]
    assert opom(*command).code == 0
    probes = [read_photos(world.people / person, first=1) for person in PEOPLE]
    wanted = np.concatenate(apply(elsewhere, probes, reference))
    np.testing.assert_array_equal(np.concatenate(seen[-2:]), wanted)
    people = read_people(elsewhere)
    for row, counts in protocol(world.network, world, elsewhere, reference).items():
        np.testing.assert_array_equal(people["network", row], counts)


def test_the_surrogate_is_marked_and_left_out_of_the_mean(world, opom, elsewhere):
    card = json.loads((world.network / "card.json").read_text())
    surrogate = {"name": "before it was renamed", "weights_sha256": card["weights_sha256"]}
    (elsewhere / "config.json").write_text(json.dumps({"surrogate": surrogate}))
    answer = opom(*world.evaluate(elsewhere))
    assert answer.code == 0
    assert answer.out.startswith("| protection, % | network* | other | mean |\n")
    assert "`*`: the surrogate itself, not in the mean\n" in answer.out
    results = json.loads((elsewhere / "results.json").read_text())
    assert results["mean"] == results["other"] != results["network"]

    alone = [*world.evaluate(elsewhere)[:2], *world.evaluate(elsewhere)[3:]]
    answer = opom(*alone, f"--config.targets={world.network}")
    assert answer.code == 0 and "not in the mean" not in answer.out
    assert "`*`: the surrogate itself; no other target was named\n" in answer.out
    results = json.loads((elsewhere / "results.json").read_text())
    assert set(results) == {"network", "mean"} and results["mean"] == results["network"]


def test_the_surrogate_from_another_file(world, opom, elsewhere, tmp_path):
    """Its kernels rounded to half: known if the surrogate is named, recorded or not."""
    twin = tmp_path / "twin"
    recognizer.save(twin, NETWORK, draw_weights(0), {}, half=True)
    assert recognizer.load(twin).digest != recognizer.load(world.network).digest
    command = [flag for flag in world.evaluate(elsewhere) if "targets" not in flag]
    command.append(f"--config.targets={world.other},{twin}")
    named = f"--config.surrogate={world.network}"
    assert opom(*command).out.startswith("| protection, % | other | twin |")
    assert opom(*command, named).out.startswith("| protection, % | other | twin* |")
    results = json.loads((elsewhere / "results.json").read_text())
    assert results["mean"] == results["other"] != results["twin"]

    digest = recognizer.load(world.network).digest
    record = {"surrogate": {"name": "network", "weights_sha256": digest}}
    (elsewhere / "config.json").write_text(json.dumps(record))
    assert opom(*command, named).out.startswith("| protection, % | other | twin* |")
    answer = opom(*command, f"--config.surrogate={world.other}")
    assert (answer.code, answer.out) == (2, "")
    assert "is not what made the masks" in answer.errors[0]


def test_a_configuration_from_elsewhere_marks_nothing(world, opom, elsewhere):
    (elsewhere / "config.json").write_text('{"surrogate": "a name"}')
    answer = opom(*world.evaluate(elsewhere))
    assert answer.code == 0 and "*" not in answer.out


def test_one_evaluation_at_a_time(world, opom, elsewhere):
    with locked(elsewhere):
        answer = opom(*world.evaluate(elsewhere))
    assert (answer.code, answer.out) == (2, "")
    assert f"Another process writes to {elsewhere}; wait." in answer.errors[-1]
    assert not (elsewhere / "results.json").exists()


def test_a_name_that_would_break_the_table(world, opom, elsewhere):
    odd = elsewhere.parent / "a|b"
    shutil.copytree(world.other, odd)
    command = [flag for flag in world.evaluate(elsewhere) if "targets" not in flag]
    answer = opom(*command, f"--config.targets={odd}")
    assert answer.out.startswith("| protection, % | a\\|b | mean |\n|---|---|---|\n")


def test_a_probe_that_the_mask_was_made_from(world, opom, finished, tmp_path):
    """A photo that came later and sorts first moves one of the mask's to the test."""
    people = shutil.copytree(world.people, tmp_path / "people")
    run = shutil.copytree(finished, tmp_path / "run")
    changed = world._replace(people=people)
    command = [*changed.evaluate(run), "--config.data.train_per_person=2"]
    assert opom(*command).code == 0
    shutil.copy(world.distractors / "0.png", people / "b" / "+.png")
    answer = opom(*command)
    assert (answer.code, answer.out) == (2, "")
    assert answer.errors[-1].startswith("opom-jax evaluate: The training photos of b are not those")

    lists = {"train": [], "test": []}
    for person in PEOPLE:
        for k in range(4):
            lists["train" if k < 2 else "test"].append(f"{person}/{k}.png\n")
    for name, lines in lists.items():
        (tmp_path / f"{name}.lst").write_text("".join(lines))
    flags = [f"--config.data.{name}_list={tmp_path / name}.lst" for name in lists]
    flags.append(f"--config.data.root={people}")
    command = [flag for flag in command if "data.people" not in flag]
    assert opom(*command, *flags).code == 0  # the new photo in neither list


def test_clean_features_are_computed_once(world, opom, seen, elsewhere, cache):
    assert opom(*world.evaluate(elsewhere)).code == 0
    assert [len(batch) for batch in seen] == [5, 4, 5, 1, 5, 4] * 2  # clean, distractors, masked
    first, kept = outputs(elsewhere), outputs(cache)
    assert len(kept) == 4
    seen.clear()
    assert opom(*world.evaluate(elsewhere)).code == 0
    assert [len(batch) for batch in seen] == [5, 4] * 2  # masked
    assert outputs(elsewhere) == first and outputs(cache) == kept

    shutil.copytree(world.people, elsewhere.parent / "people")
    changed = world._replace(people=elsewhere.parent / "people")
    shutil.copy(world.distractors / "0.png", changed.people / "b" / "3.png")
    seen.clear()
    assert opom(*changed.evaluate(elsewhere)).code == 0
    assert [len(batch) for batch in seen] == [5, 4, 5, 4] * 2  # clean and masked


def test_a_list_of_distractors_may_have_a_format_of_its_own(world, opom, elsewhere):
    assert opom(*world.evaluate(elsewhere)).code == 0
    first = outputs(elsewhere)
    names = sorted(path.name for path in world.distractors.iterdir())
    lines = [f"{k} {name}\n" for k, name in enumerate(names)]
    (elsewhere.parent / "others.lst").write_text("".join(lines))
    named = [f"--config.data.{key}" for key in ("distractors", "distractors_format", "root")]
    values = elsewhere.parent / "others.lst", "megaface", world.distractors
    flags = [f"{key}={value}" for key, value in zip(named, values, strict=True)]
    assert opom(*world.evaluate(elsewhere), *flags).code == 0
    found = outputs(elsewhere)
    assert found.pop("evaluation.json") != first.pop("evaluation.json") and found == first


def test_a_damaged_cache_is_mended(world, opom, elsewhere, cache):
    assert opom(*world.evaluate(elsewhere)).code == 0
    first, kept = outputs(elsewhere), outputs(cache)
    empty, cut, other, pickled = cache.iterdir()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-1])
    with open(other, "wb") as file:
        np.savez(file, features=np.zeros((1, 2), np.float32))
    with open(pickled, "wb") as file:
        np.savez(file, features=np.array([{}], object))
    assert opom(*world.evaluate(elsewhere)).code == 0
    assert outputs(elsewhere) == first and outputs(cache) == kept


def test_no_cache_is_no_hindrance(world, opom, elsewhere, cache):
    cache.parent.mkdir(parents=True)
    cache.symlink_to(os.devnull)
    assert opom(*world.evaluate(elsewhere)).code == 0
    assert (elsewhere / "results.json").exists()
