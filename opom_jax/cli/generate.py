"""generate --workdir=FOLDER [--config=FILE] --config.surrogate=NETWORK --config.data.people=FOLDER

Makes one mask per person: WORKDIR/masks/mask_id<k>.npy (float32, (3,H,W), RGB), config.json and
metrics.jsonl. The same command continues an interrupted run. Methods that make one mask for
everybody store it for each person; of these `gap` continues after its last epoch, `fi_uap_all`
begins anew. With --config.diverse=M every person has M masks, mask_id<k>_<m>.npy, that are also far
from one another.

All devices of the machine share the people. Several processes share them too, each started with
--processes=K --process=I and the same --workdir, on one machine or many: the masks are those of one
process. --coordinator=HOST:PORT (or auto) has them meet through jax.distributed, as TPU pods need.
"""

import hashlib
import json
import sys
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
from absl import flags as absl_flags

from opom_jax import parallel
from opom_jax.cli import config as options
from opom_jax.cli import shares
from opom_jax.cli.progress import Idle, Progress
from opom_jax.data.people import Person
from opom_jax.errors import InputError
from opom_jax.files import agreed
from opom_jax.masks import generate as masks
from opom_jax.masks.diverse import make_diverse
from opom_jax.masks.memory import evenly, fitting, people_that_fit
from opom_jax.masks.store import Store
from opom_jax.methods import METHODS
from opom_jax.networks.recognizer import Recognizer, Team

RESUMES = True
ALIKE = 0.5  # cosine of two draws of dropout below which masks learn next to nothing


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    shares.define(flags)
    return options.define(flags, argv, "Folder for masks, config.json and metrics.jsonl.")


def run(flags: absl_flags.FlagValues) -> None:
    """Checks everything, then makes the masks that are not there yet."""
    config, workdir = flags.config, options.workdir(flags)
    settings = options.settings(config)
    if not config.surrogate:
        raise InputError("config.surrogate is missing; name the folder of a converted network.")
    _check_team(config, settings)
    share, universal = shares.of_this_process(flags), _universal(settings)
    if share.count > 1 and universal:
        raise InputError(
            f"config.method={settings.method!r} makes one mask of everybody's photos, which no "
            "processes share; leave --processes out."
        )
    options.use_precision(config.precision)
    surrogates = options.load_surrogates(config)
    for network in surrogates:
        METHODS[settings.method].check(network, settings)
    network = surrogates[0] if len(surrogates) == 1 else Team(surrogates)
    people = options.load_people(config.data)
    most, digest = _looked_at(people, settings)
    batch, photos = config.people_per_batch, most * max(1, config.diverse)
    fit = people_that_fit(network, photos, config.data.image_size, config.memory_gib)
    batch = batch or evenly(len(people), fit)
    record = {
        "settings": {name: getattr(settings, name) for name in settings.__dataclass_fields__},
        "precision": config.precision,
        **_of_surrogates(surrogates),
        "people": len(people),
        "people_sha256": digest,
        "image_size": config.data.image_size,
        "people_per_batch": min(batch, len(people)),
        **({"universal": True} if universal else {}),
        **({"diverse": config.diverse} if config.diverse else {}),
    }
    decided = [] if config.people_per_batch else ["people_per_batch"]
    options.check_writable(workdir)
    if (workdir / "config.json").exists():
        agreed(workdir, record, decided)  # before photos are looked at, which takes longer
    own = shares.inspected(people, most, share, config.data)
    with Store(workdir, record, share, decided, own.agrees) as store:
        size = min(store.config["people_per_batch"], len(people))
        if decided and not universal:
            _note_idle(len(people), size, share.count * jax.local_device_count())
        make = _maker(network, settings, size, workdir, config.diverse)
        if universal:  # of all or none, and itself takes them in batches
            left, together = own.ids[:0] if store.done(own.ids) else own.ids, len(people)
        else:
            left = array("q", (person for person in own.ids if not store.done([person])))
            together = size * parallel.devices_for(len(own.ids), size)
        _make(store, make, network.name, own, left, together, config)
    print(f"{len(own.ids) * max(1, config.diverse)} masks: {workdir / 'masks'}")


def _note_idle(people: int, batch: int, devices: int) -> None:
    """Says so where batches are too few for all devices of all processes. The choice of a batch
    depends on neither, so that masks do not."""
    busy, share = -(-people // batch), -(-people // devices)
    if busy < devices and share < batch:
        print(
            f"note: batches of {batch} people leave {devices - busy} of {devices} devices without "
            f"work; --config.people_per_batch={share}, in another --workdir, spreads people best.",
            file=sys.stderr,
        )


def _smaller(method: str) -> str:
    """What helps if memory is too small."""
    by_photos = "photos_per_step" in METHODS[method].reads
    key = "baseline.photos_per_step" if by_photos else "people_per_batch"
    return f"lower config.{key}, in another --workdir"


def _universal(settings) -> bool:
    return METHODS[settings.method].serves == "everybody"


def _check_team(config: options.Config, settings) -> None:
    """Several surrogates are for methods that make one mask a person by `masks.make`."""
    alone = config.diverse or METHODS[settings.method].make is not masks.make
    if "," in config.surrogate and alone:
        what = "config.diverse" if config.diverse else f"config.method={settings.method!r}"
        raise InputError(f"{what} takes one surrogate; name one in config.surrogate.")


def _of_surrogates(surrogates: Sequence[Recognizer]) -> dict:
    """What config.json says of them."""
    each = [{"name": one.name, "weights_sha256": one.digest} for one in surrogates]
    return {"surrogate": each[0]} if len(each) == 1 else {"surrogates": each}


def _looked_at(people: Sequence[Person], settings) -> tuple[int, str]:
    """The most training photos of a person, all numbers checked, and what identifies the list."""
    most, sha = 0, hashlib.sha256(b"[")
    for person in people:
        settings.check_photos(person.name, len(person.train))
        sha.update(b", " if most else b"")
        sha.update(json.dumps([person.name, len(person.train)]).encode())
        most = max(most, len(person.train))
    sha.update(b"]")
    return most, sha.hexdigest()


def _maker(network, settings: masks.Settings, size: int, workdir: Path, diverse: int) -> Callable:
    """A function of a `Batch` to masks f32[P,(M,)H,W,3] and {name of a metric: [P,...]}."""
    if diverse:
        return lambda batch: (make_diverse(network, settings, batch, size, diverse), {})
    make = METHODS[settings.method].make
    progress = Progress("generate", "rounds") if _universal(settings) else None
    return lambda batch: make(network, settings, batch, size, workdir, progress)


def _make(
    store: Store,
    make: Callable,
    surrogate: str,
    own: shares.Own,
    left: Sequence[int],
    size: int,
    config: options.Config,
) -> None:
    """Makes the masks that are left, `size` people at once. While a batch is computed the next one
    is read and the last one written."""
    finished, idle = len(own.ids) - len(left), Idle()
    progress = Progress("generate", "people", finished)
    reader, written = own.batches(left, size, config.data), None
    with closing(reader), ThreadPoolExecutor(1, "masks") as writer:
        for ids in shares.groups(left, size):
            with fitting(min(size, store.config["people_per_batch"]), _smaller(config.method)):
                with idle:
                    batch = next(reader)
                made, metrics = make(batch)
            _check_made(surrogate, [own.people[person].name for person in ids], made, metrics)
            if not written:
                _warn(config.dropout, metrics)
            with idle:
                if written:
                    written.result()
            written = writer.submit(store.write, ids, made[: len(ids)], own.lines(ids, metrics))
            finished += len(ids)
            progress(finished, len(own.ids), f"{idle.share():.1%} of the time waiting for files")
        if written:
            written.result()


def _warn(dropout: float, metrics: dict) -> None:
    """Says so where dropout leaves too little of a surrogate: by the first step, before which there
    is no mask but its start."""
    if not dropout or "distance" not in metrics:
        return
    cosine = 1 - np.mean(metrics["distance"][:, 0]) ** 2 / 2
    if cosine < ALIKE:
        print(
            f"warning: two draws of config.dropout={dropout:g} agree to a cosine of {cosine:.2f} "
            "only, so masks learn little of the surrogate: a small network needs a smaller rate.",
            file=sys.stderr,
        )


def _check_made(surrogate: str, names: Sequence[str], made: np.ndarray, metrics: dict) -> None:
    """Refuses what a broken surrogate makes, before it is stored."""
    for k, name in enumerate(names):
        if not all(np.isfinite(values[k]).all() for values in (made, *metrics.values())):
            raise InputError(
                f"Surrogate {surrogate!r} makes a mask for {name} that is not finite; look at the "
                "surrogate with `models check`, convert or train it again."
            )
