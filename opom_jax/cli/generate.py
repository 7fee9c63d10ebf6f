"""generate --workdir=FOLDER [--config=FILE] --config.surrogate=NETWORK --config.data.people=FOLDER

Makes one mask per person: WORKDIR/masks/mask_id<k>.npy (float32, (3,H,W), RGB), config.json and
metrics.jsonl. The same command continues an interrupted run. Methods that make one mask for
everybody store it for each person. With --config.diverse=M every person has M masks,
mask_id<k>_<m>.npy, that are also far from one another.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags as absl_flags

from opom_jax.cli import config as options
from opom_jax.cli.progress import Progress
from opom_jax.data import images
from opom_jax.data.people import Person
from opom_jax.errors import InputError
from opom_jax.files import read_config
from opom_jax.masks import generate as masks
from opom_jax.masks.diverse import diverse_masks
from opom_jax.masks.store import Store
from opom_jax.methods import METHODS
from opom_jax.networks import recognizer

RESUMES = True


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    return options.define(flags, argv, "Folder for masks, config.json and metrics.jsonl.")


def run(flags: absl_flags.FlagValues) -> None:
    """Checks everything, then makes the masks that are not there yet."""
    config, workdir = flags.config, options.workdir(flags)
    settings = options.settings(config)
    if not config.surrogate:
        raise InputError("config.surrogate is missing; name the folder of a converted network.")
    options.use_precision(config.precision)
    network = recognizer.load(config.surrogate, config.precision)
    masks.check_network(network, settings)
    people = options.load_people(config.data)
    for person in people:
        settings.check_photos(person.name, len(person.train))
    photos = images.inspect(
        [path for person in people for path in person.train],
        config.data.image_size,
        config.data.resize,
        progress=Progress("checking", "photos"),
    )
    batch = config.people_per_batch or _recorded_batch(workdir)
    if not batch:
        most = max(len(person.train) for person in people)
        size, memory = config.data.image_size, config.memory_gib
        batch = masks.people_that_fit(network, most * max(1, config.diverse), size, memory)
    record = {
        "settings": {name: getattr(settings, name) for name in settings.__dataclass_fields__},
        "precision": config.precision,
        "surrogate": {"name": network.name, "weights_sha256": network.digest},
        "people": len(people),
        "people_sha256": _digest([[person.name, len(person.train)] for person in people]),
        "photos_sha256": photos,
        "image_size": config.data.image_size,
        "people_per_batch": min(batch, len(people)),
    }
    if METHODS[settings.method].serves == "everybody":
        record["universal"] = True
    if config.diverse:
        record["diverse"] = config.diverse
    with Store(workdir, record) as store:
        _make(store, settings, network, people, record["people_per_batch"], config.data)
    print(f"{len(people) * max(1, config.diverse)} masks: {workdir / 'masks'}")


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _maker(network, settings: masks.Settings, size: int, workdir: Path, diverse: int) -> Callable:
    """A function of a `Batch` to masks f32[P,(M,)H,W,3] and {name of a metric: [P,...]}."""
    if diverse:
        return lambda batch: (diverse_masks(network, settings, batch, diverse), {})
    method = METHODS[settings.method]
    progress = Progress("generate", "rounds") if method.serves == "everybody" else None
    return lambda batch: method.make(network, settings, batch, size, workdir, progress)


def _make(store: Store, settings, network, people: Sequence[Person], size: int, data) -> None:
    make = _maker(network, settings, size, store.workdir, store.config.get("diverse", 0))
    if (
        METHODS[settings.method].serves == "everybody"
    ):  # sees everybody, and itself takes them in batches
        size = len(people)
    starts = range(0, len(people), size)
    pending = [range(s, min(s + size, len(people))) for s in starts]
    finished = len(people)
    pending = [ids for ids in pending if not store.done(ids)]
    finished -= sum(map(len, pending))
    progress = Progress("generate", "people", finished)
    for ids, batch in zip(pending, _batches(people, pending, size, data), strict=True):
        made, metrics = make(batch)
        _check_made(network.name, [people[person].name for person in ids], made, metrics)
        lines = [
            {"name": people[person].name, "photos": len(people[person].train)}
            | {name: values[k].tolist() for name, values in metrics.items()}
            for k, person in enumerate(ids)
        ]
        store.write(ids, made[: len(ids)], lines)
        finished += len(ids)
        progress(finished, len(people))


def _check_made(surrogate: str, names: Sequence[str], made: np.ndarray, metrics: dict) -> None:
    """Refuses what a broken surrogate makes, before it is stored."""
    for k, name in enumerate(names):
        if not all(np.isfinite(values[k]).all() for values in (made, *metrics.values())):
            raise InputError(
                f"Surrogate {surrogate!r} makes a mask for {name} that is not finite; look at the "
                "surrogate with `models check`, convert or train it again."
            )


def _batches(
    people: Sequence[Person], pending: Sequence[range], size: int, data
) -> Iterator[masks.Batch]:
    """Reads ahead; every batch has the same shape: people and photos that are missing repeat the
    last person and the first photo, and count for nothing."""
    most = max(len(person.train) for person in people)
    padded = [[*ids, *[ids[-1]] * (size - len(ids))] for ids in pending]

    def paths(ids):
        for person in ids:
            own = people[person].train
            yield from [*own, *[own[0]] * (most - len(own))]

    read = images.read_batches((list(paths(ids)) for ids in padded), data.image_size, data.resize)
    for ids, pixels in zip(padded, read, strict=True):
        counts = np.array([len(people[person].train) for person in ids])
        yield masks.Batch(
            np.array(ids, np.int32),
            pixels.reshape(size, most, *pixels.shape[1:]),
            (np.arange(most) < counts[:, None]).astype(np.float32),
        )


def _recorded_batch(workdir) -> int:
    """The batch size that an interrupted run chose, so that it goes on in the same batches."""
    if not (workdir / "config.json").exists():
        return 0
    size = read_config(workdir).get("people_per_batch")
    return size if isinstance(size, int) and size > 0 else 0
