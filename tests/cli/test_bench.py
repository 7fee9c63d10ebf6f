"""The verb `bench`: what it prints and writes, and what it refuses."""

import csv

import jax
import numpy as np
import pytest

from opom_jax import speed
from opom_jax.networks import recognizer
from tests.tiny import Small, random_network

TINY = ["bench", "--architecture=tiny", "--photos=3", "--steps=2", "--rounds=1"]

DEVICES = jax.local_device_count()


@pytest.fixture(autouse=True)
def tiny(opom, monkeypatch):
    monkeypatch.setitem(speed.SIDE, "cpu", 64)
    return random_network(monkeypatch, Small)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_prints_and_writes_the_same(opom, tmp_path, precision):
    out = tmp_path / "new" / "folder"
    answer = opom(*TINY, "--people=2", f"--precision={precision}", f"--out={out}")
    assert answer.code == 0, answer.errors
    *lines, path = answer.out.splitlines()
    (file,) = out.iterdir()
    assert path == str(file) and file.name.startswith("bench_")
    assert file.name.endswith(f"_{precision}_jax-{jax.__version__}.csv")
    with open(file, newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert [line.split(maxsplit=1)[0] for line in lines] == [name.split("_")[0] for name in row]
    assert [line[23:] for line in lines] == list(row.values())
    assert (row["network"], row["people"], row["steps"]) == ("tiny", str(2 * DEVICES), "2")
    assert float(row["compile_seconds"]) >= 0
    rates = ("seconds_a_step", "masks_a_second", "tflops", "share_of_ceiling")
    assert all(float(row[name]) > 0 for name in (*rates, "qp_share_of_step", "peak_memory_gib"))
    made = float(row["masks_a_second"]) * float(row["seconds_a_step"]) * 2
    assert made == pytest.approx(2 * DEVICES, rel=1e-2)


def test_more_people_than_one_batch(opom):
    answer = opom(*TINY, "--people=2", f"--total={4 * DEVICES + 1}")
    assert answer.code == 0, answer.errors
    row = {line[:22].strip(): line[23:] for line in answer.out.splitlines()}
    assert row["people"] == str(4 * DEVICES + 1)
    made = float(row["masks a second"]) * float(row["seconds a step"]) * 2
    assert made == pytest.approx(4 * DEVICES + 1, rel=1e-2)


def test_a_folder_of_a_network(opom, tiny, tmp_path):
    arrays = {path: np.asarray(v[...]) for path, v in recognizer.flat(tiny.params).items()}
    recognizer.save(tmp_path / "mine", "tiny", arrays, {})
    answer = opom("bench", f"--network={tmp_path / 'mine'}", "--people=1", *TINY[2:])
    assert answer.code == 0, answer.errors
    assert "network                mine\n" in answer.out


REFUSED = {
    "both": (["--network=x"], "Name a --network or an --architecture, not both."),
    "no such architecture": (["--architecture=ir_51"], "--architecture=ir_51 is unknown; choose"),
    "no people": (["--people=-1"], "--people=-1"),
    "no photos": (["--photos=0"], "--photos=0"),
    "no steps": (["--steps=0"], "--steps=0"),
    "half steps": (["--steps=1.5"], "--steps=1.5"),
    "no rounds": (["--rounds=0"], "--rounds=0"),
    "another precision": (["--precision=float16"], "--precision=float16"),
    "a file for a folder": (["--out={root}/file"], "choose another --out"),
    "no folder": (["--out="], "--out= cannot be written"),
    "a stray word": (["stray"], "'stray'"),
}


@pytest.mark.parametrize("flags, named", REFUSED.values(), ids=REFUSED)
def test_refused(opom, tmp_path, monkeypatch, flags, named):
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured before the refusal"))
    (tmp_path / "file").write_text("")
    answer = opom(*TINY, *(flag.format(root=tmp_path) for flag in flags))
    assert answer.code == 2 and answer.out == "" and len(answer.errors) == 1
    assert named in answer.errors[0] and answer.errors[0].startswith("opom-jax bench: ")


def test_a_network_that_is_not_there(opom, tmp_path):
    answer = opom("bench", f"--network={tmp_path / 'nowhere'}")
    assert answer.code == 2 and "nowhere" in answer.errors[0]
