"""generate: the files of a run, what they depend on and what they do not, and interruptions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch
from opom_jax.masks.diverse import diverse_masks
from opom_jax.masks.generate import Settings
from opom_jax.networks import recognizer
from tests.cli.conftest import save_broken

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(steps=2, initial_steps=1)
# Sign steps turn where a gradient is rounding: on the CPU none do, elsewhere a few may.
PIXELS, CURVES = 1e-3, 1e-3


def files(workdir: Path) -> dict[str, bytes]:
    found = (path for path in workdir.rglob("*") if path.is_file())
    return {str(path.relative_to(workdir)): path.read_bytes() for path in found}


def read(workdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Masks f32[P,3,H,W] and objectives f64[P,T] of a finished run."""
    journals = "".join(path.read_text() for path in sorted(workdir.glob("metrics*.jsonl")))
    lines = sorted(map(json.loads, journals.splitlines()), key=lambda line: line["id"])
    made = [np.load(workdir / f"masks/mask_id{line['id']}.npy") for line in lines]
    return np.stack(made), np.array([line["objective"] for line in lines])


def check_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.mean(found != wanted) <= PIXELS


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_files(finished, world):
    names = {"config.json", "metrics.jsonl", *(f"masks/mask_id{k}.npy" for k in range(3))}
    assert set(files(finished)) == names
    for k in range(3):
        mask = np.load(finished / f"masks/mask_id{k}.npy")
        assert mask.dtype == np.float32 and mask.shape == (3, 112, 112)
        assert np.abs(mask).max() <= 8 and mask.std() > 1  # NaN fails too
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["method"] == "convex_hull" and config["settings"]["steps"] == 2
    assert config["people"] == 3 and config["people_per_batch"] == 1
    card = json.loads((world.network / "card.json").read_text())
    assert config["surrogate"] == {"name": "network", "weights_sha256": card["weights_sha256"]}


def test_metrics(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["id"], line["name"], line["photos"]) for line in lines] == [
        (0, "a", 2),
        (1, "b", 2),
        (2, "c", 2),
    ]
    for line in lines:
        assert len(line["objective"]) == len(line["distance"]) == 2
        assert all(0 < d < 2 for d in line["distance"])


@pytest.mark.parametrize("size", [2, 3, 0])
def test_masks_do_not_depend_on_the_batch(world, opom, finished, tmp_path, size):
    command = world.generate(tmp_path / "run", f"--config.people_per_batch={size}")
    assert opom(*command).code == 0
    (found, curves), (wanted, alone) = read(tmp_path / "run"), read(finished)
    check_same(found, wanted)
    np.testing.assert_allclose(curves, alone, rtol=CURVES)


def test_devices_without_work_are_said(world, opom, tmp_path, monkeypatch):
    """The batch that is chosen is the same for all numbers of devices, so that masks are too."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    flags = "--processes=2", "--config.data.limit=3", "--config.people_per_batch=0"
    answer = opom(*world.generate(tmp_path / "run", *flags))
    assert answer.code == 0
    (line,) = answer.errors
    assert "batches of 3 people leave 7 of 8 devices without work" in line
    assert "--config.people_per_batch=1, in another --workdir, spreads people best" in line


def test_another_seed_gives_other_masks(world, opom, finished, tmp_path):
    assert opom(*world.generate(tmp_path / "run", "--config.seed=1")).code == 0
    assert np.mean(read(tmp_path / "run")[0] != read(finished)[0]) > 0.5


def test_masks_do_not_depend_on_padding(world, opom, tmp_path):
    ragged = world._replace(people=tmp_path / "people")
    for count, person in enumerate("abc", start=1):
        (ragged.people / person).mkdir(parents=True)
        for k in range(count):
            shutil.copy(world.people / person / f"{k}.png", ragged.people / person)
    command = ragged.generate(tmp_path / "run", "--config.data.train_per_person=3")
    assert opom(*command).code == 0
    found, curves = read(tmp_path / "run")
    network = recognizer.load(world.network)
    compiled = masks.generator(network, SETTINGS)
    for k, person in enumerate("ab"):  # c has no padding
        photos = [np.array(Image.open(f)) for f in sorted((ragged.people / person).iterdir())]
        batch = Batch(
            np.array([k], np.int32), np.stack(photos)[None], np.ones((1, k + 1), np.float32)
        )
        alone, metrics = masks.generate(compiled, network.params, SETTINGS, batch)
        check_same(found[k], alone[0].transpose(2, 0, 1))
        np.testing.assert_allclose(curves[k], metrics.objective[0], rtol=CURVES, atol=1e-9)


def test_dropout_that_leaves_too_little_is_said(world, opom, tmp_path):
    for rate, said in (("0.9", 1), ("0.001", 0)):
        answer = opom(*world.generate(tmp_path / rate, f"--config.dropout={rate}"))
        assert answer.code == 0 and len(list((tmp_path / rate / "masks").iterdir())) == 3
        assert len(answer.errors) == said
        assert all(f"config.dropout={rate} agree to a cosine of" in line for line in answer.errors)


def test_a_finished_run_is_left_alone(world, opom, workdir, monkeypatch):
    monkeypatch.setattr(masks, "generate", lambda *_: pytest.fail("computed again"))
    before = {path: path.stat() for path in workdir.rglob("*")}
    answer = opom(*world.generate(workdir))
    assert answer.code == 0 and answer.out == f"3 masks: {workdir / 'masks'}\n"
    after = {path: path.stat() for path in workdir.rglob("*")}
    assert before.keys() == after.keys()
    for path, state in before.items():
        assert (state.st_ino, state.st_mtime_ns) == (after[path].st_ino, after[path].st_mtime_ns)


def test_diverse_masks(world, opom, tmp_path):
    """Their files, their content, and that the same command continues byte for byte."""
    workdir = tmp_path / "run"
    command = world.generate(workdir, "--config.diverse=2")
    answer = opom(*command)
    assert answer.code == 0 and answer.out == f"6 masks: {workdir / 'masks'}\n"
    first = files(workdir)
    names = {f"masks/mask_id{k}_{m}.npy" for k in range(3) for m in range(2)}
    assert set(first) == {"config.json", "metrics.jsonl", *names}
    assert json.loads(first["config.json"])["diverse"] == 2

    photos = [np.array(Image.open(world.people / "b" / f"{k}.png")) for k in range(2)]
    batch = Batch(np.array([1], np.int32), np.stack(photos)[None], np.ones((1, 2), np.float32))
    wanted = diverse_masks(recognizer.load(world.network), SETTINGS, batch, 2)[0]
    for m in range(2):
        found = np.load(workdir / f"masks/mask_id1_{m}.npy")
        check_same(found, wanted[m].transpose(2, 0, 1))
    assert np.mean(wanted[0] != wanted[1]) > 0.5

    lines = first["metrics.jsonl"].splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_bytes(lines[0] + lines[1][:5])
    (workdir / "masks/mask_id1_1.npy").unlink()
    assert opom(*command).code == 0 and files(workdir) == first
    other = opom(*world.generate(workdir, "--config.diverse=3"))
    assert other.code == 2 and "diverse: 2 there, 3 here" in other.errors[0]


def test_a_missing_mask_is_made_again(world, opom, workdir, finished):
    (workdir / "masks/mask_id1.npy").unlink()
    assert opom(*world.generate(workdir)).code == 0
    assert files(workdir) == files(finished)


def test_a_mask_with_other_values_is_made_again(world, opom, workdir, finished):
    for k, value in enumerate((np.nan, 20.0)):
        mask = np.load(workdir / f"masks/mask_id{k}.npy")
        mask[0, 3, 5] = value
        np.save(workdir / f"masks/mask_id{k}.npy", mask)
    assert opom(*world.generate(workdir)).code == 0
    assert files(workdir) == files(finished)


def test_a_surrogate_that_sees_nothing(world, opom, tmp_path):
    """0 / 0 in its unit features: NaN, which is never stored."""
    blind = world._replace(network=save_broken(tmp_path / "blind", 0))
    answer = opom(*blind.generate(tmp_path / "run"))
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.errors
    assert "Surrogate 'blind' makes a mask for a that is not finite" in line
    assert set(files(tmp_path / "run")) == {"config.json"}


# Dies with half a mask in the partial file of person 1.
DYING = """
import os, signal, sys
import numpy as np
from opom_jax import cli

save = np.save

def half(file, array):
    save(file, array)
    if "mask_id1" in file.name:
        file.truncate(1000)
        os.kill(os.getpid(), signal.SIGKILL)

np.save = half
cli.main(["opom-jax", *sys.argv[1:]])
"""


def check_resumed(world, opom, workdir, finished):
    assert opom(*world.generate(workdir)).code == 0
    assert files(workdir) == files(finished)


def test_interrupted_by_the_user(world, opom, finished, tmp_path, monkeypatch):
    compute = masks.generate
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)  # one person after the other

    def interrupted(compiled, params, settings, batch):
        if batch.ids[0] == 1:
            raise KeyboardInterrupt
        return compute(compiled, params, settings, batch)

    with monkeypatch.context() as patched:
        patched.setattr(masks, "generate", interrupted)
        answer = opom(*world.generate(tmp_path / "run"))
    assert answer.code == 1 and answer.out == ""
    assert answer.errors == ["opom-jax generate: interrupted; the same command continues."]
    assert set(files(tmp_path / "run" / "masks")) == {"mask_id0.npy"}
    check_resumed(world, opom, tmp_path / "run", finished)


def test_memory_that_is_too_small(world, opom, tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(masks, "generate", full)
    answer = opom(*world.generate(tmp_path / "run"))
    assert answer.code == 2 and len(answer.errors) == 1
    assert "do not fit into memory" in answer.errors[0]
    assert "lower config.people_per_batch" in answer.errors[0]
    assert not files(tmp_path / "run" / "masks")


def test_killed_within_a_mask(world, opom, finished, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-c", DYING, *world.generate(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    partial = workdir / "masks/.mask_id1.npy.partial"
    assert set(files(workdir / "masks")) == {"mask_id0.npy", partial.name}
    check_resumed(world, opom, workdir, finished)


def test_killed_when_a_mask_appears(world, opom, finished, tmp_path):
    """And until then no second process may write there."""
    workdir = tmp_path / "run"
    command = [sys.executable, "run.py", *world.generate(workdir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            while not (workdir / "masks/mask_id0.npy").exists():
                assert run.poll() is None, run.stderr.read()
                time.sleep(1e-3)
            os.kill(run.pid, signal.SIGSTOP)
            second = opom(*world.generate(workdir))
        finally:
            run.kill()
    assert second.code == 2
    assert second.errors == [f"opom-jax generate: Another process writes to {workdir}; wait."]
    assert run.returncode == -signal.SIGKILL
    check_resumed(world, opom, workdir, finished)


def test_another_photo_under_an_old_name_is_refused(world, opom, workdir, tmp_path):
    changed = world._replace(people=Path(shutil.copytree(world.people, tmp_path / "people")))
    shutil.copy(changed.people / "b/3.png", changed.people / "b/0.png")
    before = files(workdir)
    answer = opom(*changed.generate(workdir))
    assert answer.code == 2 and "The photos of b are not those" in answer.errors[0]
    assert files(workdir) == before
    shutil.copy(changed.people / "b/0.png", changed.people / "b/2.png")  # a probe may change
    shutil.copy(world.people / "b/0.png", changed.people / "b/0.png")
    assert opom(*changed.generate(workdir)).code == 0


def test_two_surrogates_together(world, opom, tmp_path):
    team = world._replace(network=f"{world.network},{world.other}")
    assert opom(*team.generate(tmp_path / "run")).code == 0
    made, objectives = read(tmp_path / "run")
    assert opom(*world.generate(tmp_path / "alone")).code == 0
    alone = read(tmp_path / "alone")
    assert np.mean(made != alone[0]) > 0.1 and (objectives[:, 0] > alone[1][:, 0]).all()
    recorded = json.loads((tmp_path / "run/config.json").read_text())["surrogates"]
    assert [one["name"] for one in recorded] == ["network", "other"]
    answer = opom(*world.evaluate(tmp_path / "run", "--config.data.train_per_person=2"))
    assert answer.code == 0 and "network*" in answer.out and "other*" in answer.out
    flags = "--config.data.train_per_person=2", f"--config.surrogate={world.network}"
    answer = opom(*world.evaluate(tmp_path / "run", *flags))
    assert answer.code == 2 and "is not what made the masks" in answer.errors[0]


@pytest.mark.parametrize(
    "flag, said",
    {
        "--config.diverse=2": "config.diverse takes one surrogate",
        "--config.method=gd_uap": "config.method='gd_uap' takes one surrogate",
        "--config.surrogate={0},{0}": "without {0} twice",
    }.items(),
)
def test_surrogates_that_do_not_go_together(world, opom, tmp_path, flag, said):
    team = world._replace(network=f"{world.network},{world.other}")
    steps = ["--config.steps=16"] if "gd_uap" in flag else []  # which it does not read
    answer = opom(*team.generate(tmp_path / "run", flag.format(world.network), *steps))
    assert answer.code == 2 and said.format(world.network) in answer.errors[0]
    assert not (tmp_path / "run").exists()
