"""A training run in a folder: it starts, goes on where it stopped, and ends with a network.

    config.json     what decides the run; another configuration is refused
    checkpoints/    the last two states
    metrics.jsonl   a line an evaluation: its step, loss and speed since the line before or the
                    restart (`Meter`), verification
    network/        the trained network, as `recognizer.load` reads it

On the same devices a run that was interrupted ends with the same bits as one that was not.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from opom_jax import files
from opom_jax.checkpoints import Checkpoints
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer
from opom_jax.training import data
from opom_jax.training.meter import Meter, broken
from opom_jax.training.settings import Settings
from opom_jax.training.sources import Data
from opom_jax.training.step import Devices, Trainer, TrainState, trainer
from opom_jax.training.verification import Verification, verification

Report = Callable[[int, str], None]


class Often(NamedTuple):
    """What may differ from one start of a run to the next: steps between evaluations and between
    checkpoints, and whether the network is stored in float16."""

    evaluate: int
    checkpoint: int
    half: bool = False


def train(
    workdir: Path,
    settings: Settings,
    given: Data,
    often: Often,
    devices: Devices,
    report: Report = lambda step, said: None,
    origin: Recognizer | None = None,
) -> Path:
    """Trains to the end, from the last checkpoint if there is one.

    Args:
      workdir: made if needed.
      settings: checked.
      given: photos.
      often: see there.
      devices: share every batch.
      report: called after every step with the steps done and the latest numbers in words.
      origin: a network of the same kind whose weights and statistics the run begins with; the class
        weights are new. Random weights if not given.

    Returns:
      The folder of the trained network.

    Raises:
      InputError: a batch that does not fit, another run's folder or a process at work in it, no
        room, a loss that is not finite.
    """
    settings.check_batch(len(given.train), len(devices))
    record = {"settings": dataclasses.asdict(settings), "data": given.record}
    if origin is not None:
        record["init"] = origin.digest
    with files.held(workdir):
        if (workdir / "network").exists():
            return _finished(workdir / "network", record)
        files.begin(workdir, record)
        with closing(Checkpoints(workdir, record)) as checkpoints:
            compiled = trainer(settings, given.people, devices)
            run = _Run(workdir, settings, given, compiled, origin)
            state = run.finish(checkpoints, often, report)
        final = run.evaluate(state)
        return _save(workdir, settings, record, state, final, often.half)


def check_settings(workdir: Path, settings: Settings) -> None:
    """Raises InputError if the folder is of a run with other settings; before photos are read."""
    path = workdir / "config.json"
    if path.exists():
        stored = files.read_config(workdir).get("settings")
        files.check_same(path, {"settings": stored}, {"settings": dataclasses.asdict(settings)})


def _finished(folder: Path, record: dict) -> Path:
    """The network of this very run; InputError if it is another one."""
    source = recognizer.read_card(folder)["source"]
    if not isinstance(source, dict) or "verification" not in source:
        raise InputError(f"{folder} is a network that was not trained here; use another --workdir.")
    stored = {"settings": source.get("trained"), "data": source.get("data")}
    if "init" in source:
        stored["init"] = source["init"]
    files.check_same(folder / "card.json", stored, record)
    return folder


class _Run:
    """The loop, and what it reads and says."""

    def __init__(
        self,
        workdir: Path,
        settings: Settings,
        given: Data,
        compiled: Trainer,
        origin: Recognizer | None,
    ):
        self.metrics = workdir / "metrics.jsonl"
        self.settings, self.given, self.trainer = settings, given, compiled
        self.origin = origin
        self.meter, self.said = Meter(settings.batch), ""
        self.evaluated: set[int] = set()

    def finish(self, checkpoints: Checkpoints, often: Often, report: Report) -> TrainState:
        """Does the steps that are left."""
        first, steps = checkpoints.latest(), self.settings.steps
        state = self._start(checkpoints)
        try:
            lines = files.journal(self.metrics, lambda line: _step(line) <= first)
            self.evaluated = {line["step"] for line in lines}
        except OSError as error:
            raise files.unusable(self.metrics.parent, error) from error
        for step, batch in enumerate(self._batches(first), first + 1):
            state, metrics = self.trainer.update(state, *batch)
            self.meter.add(step, metrics)
            if step % often.evaluate == 0 and step < steps:
                self.evaluate(state)
            if step % often.checkpoint == 0 or step == steps:
                self.meter.settle()
                checkpoints.save(state)
            report(step, f"step {step}, loss {self.meter.loss:.3g}{self.said}")
        return state

    def _start(self, checkpoints: Checkpoints) -> TrainState:
        if checkpoints.latest() == 0:
            state = self.trainer.init()
            return state if self.origin is None else _filled(state, self.origin)
        return checkpoints.restore(self.trainer.init.eval_shape())  # pyright: ignore

    def _batches(self, first: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Batches on the devices, the next one on its way while one is used."""
        settings, split, waiting = self.settings, self.trainer.split, None
        for images, labels in data.batches(
            self.given.train, settings.batch, settings.seed, settings.augment, first, settings.steps
        ):
            coming = split(images), split(labels)
            if waiting is not None:
                yield waiting
            waiting = coming
        if waiting is not None:
            yield waiting

    def evaluate(self, state: TrainState) -> Verification:
        """Verifies the held-out people; the numbers go into metrics.jsonl once."""
        self.meter.settle()
        step = int(state.step)
        features, labels = self._features(state)
        if not np.isfinite(features).all():
            raise broken(step)
        found = verification(features, labels)
        self.said = f", verification {100 * found.accuracy:.1f} %"
        if step not in self.evaluated:
            line = {"step": step, **self.meter.summary(), **found._asdict()}
            files.append(self.metrics, [line])
        self.meter.restart()
        return found

    def _features(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        size, rows, labels = self.settings.batch, [], []
        for images, own in data.in_order(self.given.held_out, size):
            whole = self.trainer.split(np.resize(images, (size, *images.shape[1:])))  # repeats
            found = self.trainer.embed(state.params, state.statistics, whole)
            rows.append(np.asarray(found)[: len(own)])
            labels.append(own)
        return np.concatenate(rows), np.concatenate(labels)


def _filled(state: TrainState, origin: Recognizer) -> TrainState:
    """The state with the weights and statistics of a network."""
    stored = recognizer.flat(origin.params)

    def fill(path, variable):
        array = jax.device_put(stored["/".join(map(str, path))][...], variable[...].sharding)
        return path, variable.replace(array)

    params, statistics = (
        nnx.from_flat_state([fill(*leaf) for leaf in nnx.to_flat_state(part)])
        for part in (state.params, state.statistics)
    )
    return state._replace(params=params, statistics=statistics)


def _step(line: dict) -> float:
    step = line.get("step")
    return step if isinstance(step, int) else math.inf


def _save(
    workdir: Path,
    settings: Settings,
    record: dict,
    state: TrainState,
    final: Verification,
    half: bool,
) -> Path:
    both = (recognizer.flat(part) for part in (state.params, state.statistics))
    arrays = {path: np.asarray(v[...]) for part in both for path, v in part.items()}
    source = {
        "trained": record["settings"],
        **{key: record[key] for key in ("data", "init") if key in record},
        "steps": settings.steps,
        "images_seen": settings.steps * settings.batch,
        "verification": final._asdict(),
    }
    recognizer.save(workdir / "network", settings.network, arrays, source, half=half)
    return workdir / "network"
