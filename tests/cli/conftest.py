"""A tiny random network, a few people, and the command line as a function."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from opom_jax import cli
from opom_jax.cli import evaluate
from opom_jax.masks import generate
from opom_jax.networks import recognizer

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "ir_small"


class World(NamedTuple):
    """Everything that the verbs read.

    Attributes:
      root: the folder of all of it.
      network: folder of a converted network with random weights.
      other: one of the same kind with other weights.
      people: folder with a, b and c, four photos each (0.png to 3.png).
      distractors: folder with six photos.
    """

    root: Path
    network: Path
    other: Path
    people: Path
    distractors: Path

    @classmethod
    def at(cls, root: Path) -> "World":
        return cls(root, *(root / name for name in cls._fields[1:]))

    def generate(self, workdir: Path, *flags: str) -> list[str]:
        """`generate` with two photos a person and two steps, the first of them ClassCenter."""
        return [
            "generate",
            f"--workdir={workdir}",
            f"--config.surrogate={self.network}",
            f"--config.data.people={self.people}",
            "--config.data.train_per_person=2",
            "--config.steps=2",
            "--config.initial_steps=1",
            "--config.people_per_batch=1",
            *flags,
        ]

    def evaluate(self, workdir: Path, *flags: str) -> list[str]:
        """`evaluate` with three probes a person against both networks."""
        return [
            "evaluate",
            f"--workdir={workdir}",
            f"--config.targets={self.network},{self.other}",
            f"--config.data.people={self.people}",
            "--config.data.train_per_person=1",
            f"--config.data.distractors={self.distractors}",
            *flags,
        ]


class Answer(NamedTuple):
    """What a command said.

    Attributes:
      code: exit code.
      out: standard output.
      errors: lines of standard error but for those of `Progress`.
    """

    code: int
    out: str
    errors: list[str]


def draw_weights(seed: int) -> dict[str, np.ndarray]:
    """Random arrays of `NETWORK` that keep the size of what passes through them."""
    rng = np.random.default_rng(seed)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith("kernel"):
            return rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
        middle = 1.0 if path.endswith(("scale", "var")) else 0.0
        return middle + rng.uniform(-0.2, 0.2, shape)

    shapes = recognizer.abstract_params(NETWORK)
    return {path: draw(path, v.shape).astype(np.float32) for path, v in shapes.items()}


def save_broken(folder: Path, bias: float) -> Path:
    """Saves a network whose embedding is this number everywhere, whatever it sees."""
    shapes = recognizer.abstract_params(NETWORK)
    arrays = {path: np.zeros(v.shape, np.float32) for path, v in shapes.items()}
    arrays["embedding_bn/bias"] += bias
    recognizer.save(folder, NETWORK, arrays, {})
    return folder


def draw_photo(rng: np.random.Generator, path: Path, size: int = 112) -> None:
    """A smooth random picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8))
    coarse.resize((size, size), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Shared, so only read; what damages something works on a copy."""
    world = World.at(tmp_path_factory.mktemp("world"))
    for seed, folder in enumerate((world.network, world.other)):
        recognizer.save(folder, NETWORK, draw_weights(seed), {"file": "random"})
    rng = np.random.default_rng(0)
    for person in "abc":
        for k in range(4):
            draw_photo(rng, world.people / person / f"{k}.png")
    for k in range(6):
        draw_photo(rng, world.distractors / f"{k}.png")
    return world


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory) -> Path:
    """The workdir of an undisturbed `generate`."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, "run.py", *world.generate(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"3 masks: {workdir / 'masks'}\n"
    return workdir


@pytest.fixture(scope="session")
def compiled() -> dict:
    """What this session has compiled or loaded, by what it was made of."""
    return {}


@pytest.fixture
def opom(compiled, capfd, monkeypatch) -> Callable[..., Answer]:
    """opom(verb, *flags) runs the command line in this process; nothing is compiled or loaded
    twice."""

    def once(what, name):
        build = getattr(what, name)

        def built(*arguments):
            key = name, *(getattr(argument, "digest", argument) for argument in arguments)
            if key not in compiled:
                compiled[key] = build(*arguments)
            return compiled[key]

        monkeypatch.setattr(what, name, built)

    once(generate, "generator")
    once(evaluate, "extractor")
    once(recognizer, "load")
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)  # tests/conftest.py has done that

    def call(*arguments: str) -> Answer:
        sys.modules.pop("config_config", None)  # ml_collections loads every file under this name
        capfd.readouterr()
        with warnings.catch_warnings():  # as ml_collections loads files
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            code = cli.main(["opom-jax", *map(str, arguments)])
        out, error = capfd.readouterr()
        progress = ("checking", "generate: ", "fetching", "drawing")
        return Answer(code, out, [e for e in error.splitlines() if not e.startswith(progress)])

    precision = jax.config.jax_default_matmul_precision
    yield call
    jax.config.update("jax_default_matmul_precision", precision)
