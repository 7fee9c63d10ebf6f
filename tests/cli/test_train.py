"""`train` from the command line: photos in, a network out, bad input refused in a sentence."""

import json
import os

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from opom_jax.networks import recognizer
from opom_jax.networks.layers import Conv, FlatDense, batch_norm
from opom_jax.networks.registry import NETWORKS, Spec
from opom_jax.training import loop, sources

SIZE = 16


class Tiny(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = Conv(3, 4, 3, stride=4, padding=1, rngs=rngs)
        self.bn = batch_norm(4, rngs=rngs)
        self.head = FlatDense(4, 4, 4, 6, rngs=rngs)

    def __call__(self, x):
        return self.head(self.bn(self.conv(x))), {}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", Spec(Tiny, embedding=6, layout="ir", size=SIZE))


@pytest.fixture
def people(tmp_path):
    """a to e, four photos each: noise around one colour a person."""
    folder, rng = tmp_path / "people", np.random.default_rng(0)
    for person in "abcde":
        (folder / person).mkdir(parents=True)
        color = rng.integers(30, 220, 3)
        for n in range(4):
            pixels = np.clip(color + rng.normal(0, 8, (SIZE, SIZE, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / person / f"{n}.png")
    return folder


@pytest.fixture
def train(opom, people, tmp_path):
    """train(*flags): a run of four steps in tmp_path / "run"; progress lines are left out."""

    def call(*flags):
        answer = opom(
            "train",
            *(flag for flag in flags if flag.startswith("--config=")),
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.people={people}",
            f"--config.data.image_size={SIZE}",
            "--config.data.held_out=2",
            "--config.network=tiny",
            "--config.steps=4",
            "--config.batch=8",
            "--config.warmup=1",
            "--config.learning_rate=0.01",
            *(flag for flag in flags if not flag.startswith("--config=")),
        )
        progress = ("train: ", "rendering: ")
        return answer._replace(errors=[e for e in answer.errors if not e.startswith(progress)])

    return call


def check_refused(answer, *named):
    assert answer.code == 2 and answer.out == "" and len(answer.errors) == 1, answer
    assert answer.errors[0].startswith("opom-jax train: ") and answer.errors[0].endswith(".")
    for name in named:
        assert str(name) in answer.errors[0], answer.errors[0]


def test_a_folder_of_people(train, tmp_path, capfd):
    answer = train("--config.eval_every=2")
    assert (answer.code, answer.errors) == (0, [])
    folder = tmp_path / "run" / "network"
    assert answer.out.startswith(f"tiny: {folder} (verification ")
    card = recognizer.read_card(folder)
    assert card["source"]["data"]["people"] == 5 and card["source"]["images_seen"] == 32
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert recognizer.load(folder).spec.embedding == 6
    assert train("--config.eval_every=2").out == answer.out


def test_the_progress_line(train, opom, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("opom_jax.cli.train.Progress.__call__", lambda *call: said.append(call))
    assert train("--config.eval_every=2").code == 0
    numbers = [call[1:] for call in said if len(call) == 4]
    assert [done for done, _, _ in numbers] == [8, 16, 24, 32]
    assert numbers[0][2].startswith("step 1, loss ") and "verification" not in numbers[0][2]
    assert " %" in numbers[2][2].partition("verification ")[2]


def test_synthetic_people(train, tmp_path, monkeypatch):
    def photos(*arguments):
        assert arguments[:5] == (3, 4, 2, 7, 2)
        grey = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
        labels = np.repeat(np.arange(6, dtype=np.int32), 2)
        both = sources.ArraySource(grey[:8], labels[:8]), sources.ArraySource(grey[8:], labels[8:])
        return sources.Data(*both, 4, {"synthetic": {}})

    monkeypatch.setattr(sources, "from_synthetic", photos)
    drawn = {"first": 3, "people": 4, "photos": 2, "seed": 7, "held_out": 2}
    flags = [f"--config.data.synthetic.{key}={value}" for key, value in drawn.items()]
    flags += ["--config.data.people=", "--config.data.image_size=112"]
    answer = train("--config.half", *flags)
    assert (answer.code, answer.errors) == (0, [])
    assert (tmp_path / "run" / "network" / "params.npz").exists()


REFUSED = {
    "unknown key": (["--config.stepz=1"], ["'stepz'", "data.synthetic.first"]),
    "a key of generate": (["--config.epsilon=1"], ["'epsilon'"]),
    "text for a number": (["--config.steps=x"], ["steps"]),
    "network": (["--config.network=vgg"], ["config.network='vgg'", "tiny"]),
    "head": (["--config.head=x"], ["config.head='x'", "arcface"]),
    "optimizer": (["--config.optimizer=x"], ["config.optimizer='x'", "adamw"]),
    "precision": (["--config.precision=x"], ["config.precision='x'", "bfloat16"]),
    "init": (["--config.init=zoo:target_senet"], ["config.init='zoo:target_senet'", "tiny"]),
    "no init": (["--config.init={root}/nowhere"], ["nowhere"]),
    "eval_every": (["--config.eval_every=0"], ["config.eval_every=0", "1 or more"]),
    "devices": (["--config.devices=5"], ["config.devices=5", "between 0 and 4"]),
    "batch": (["--config.batch=16"], ["config.batch=16", "12 photos"]),
    "batch by devices": (["--config.batch=6"], ["config.batch=6", "4 devices"]),
    "size": (["--config.data.image_size=112"], ["16 x 16", "resize"]),
    "held_out": (["--config.data.held_out=4"], ["5 people, needs 6", "config.data.held_out=4"]),
    "one held out": (["--config.data.held_out=1"], ["config.data.held_out=1", "2 or more"]),
    "photos": (["--config.data.min_photos=5"], ["'a'", "4 photos", "config.data.min_photos=5"]),
    "no folder": (["--config.data.people={root}/nowhere"], ["nowhere"]),
    "synthetic": (
        ["--config.data.people=", "--config.data.synthetic.photos=1"],
        ["config.data.synthetic.photos=1", "2 or more"],
    ),
    "size of synthetic people": (["--config.data.people="], ["config.data.image_size=16", "112"]),
    "more than memory": (
        [
            "--config.data.people=",
            "--config.data.image_size=112",
            "--config.data.synthetic.people=100000000",
            "--config.data.synthetic.photos=100000000",
        ],
        ["do not fit into memory", "config.data.synthetic.people"],
    ),
    "batch of synthetic people": (
        ["--config.data.people=", "--config.data.image_size=112", "--config.batch=20000"],
        ["config.batch=20000", "10000 photos"],
    ),
}


@pytest.mark.parametrize("flags, named", REFUSED.values(), ids=REFUSED)
def test_refused(train, tmp_path, monkeypatch, flags, named):
    monkeypatch.setattr(loop, "trainer", lambda *_: pytest.fail("computed before it was refused"))
    check_refused(train(*(flag.format(root=tmp_path) for flag in flags)), *named)
    assert not (tmp_path / "run").exists()


def test_a_start_with_weights_that_are_not_finite(train, tmp_path, monkeypatch):
    """Seen before anybody is drawn."""
    shapes = recognizer.abstract_params("tiny").items()
    arrays = {path: np.full(v.shape, np.nan, np.float32) for path, v in shapes}
    recognizer.save(tmp_path / "net", "tiny", arrays, {})
    monkeypatch.setattr(sources, "from_synthetic", lambda *_: pytest.fail("drawn"))
    answer = train("--config.data.people=", f"--config.init={tmp_path / 'net'}")
    check_refused(answer, tmp_path / "net", "not finite in bn/bias", "convert or train it again")


def test_one_person(train, people, tmp_path):
    for person in "bcde":
        (people / person).rename(tmp_path / person)
    check_refused(train(), people, "1 people, needs 4", "add people")


def test_an_unreadable_photo(train, people, tmp_path):
    path = people / "d" / "2.png"
    path.write_bytes(path.read_bytes()[:50])
    check_refused(train(), path, "replace the file")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_used(train, tmp_path):
    (tmp_path / "run").write_text("kept")
    check_refused(train(), tmp_path / "run", "choose another --workdir")
    check_refused(train(f"--workdir={tmp_path / 'run' / 'below'}"), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(train, tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    check_refused(train(), tmp_path / "run")


def test_another_run(train, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Checkpoints, "save", interrupt)
        answer = train()
    assert answer.code == 1 and "the same command continues" in answer.errors[0]
    check_refused(
        train("--config.head=sface"), "config.json", "settings.head: 'arcface' there, 'sface' here"
    )
    assert train().code == 0


def test_a_config_file(train, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from opom_jax.cli.train import get_config as base\n"
        "def get_config():\n    config = base()\n    config.head = 'nothing'\n    return config\n"
    )
    check_refused(train(f"--config={path}"), "config.head='nothing'")
