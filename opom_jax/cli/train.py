"""train --workdir=FOLDER [--config=FILE] [--config.data.people=FOLDER]

Trains a recogniser on a folder with a folder per person, or on synthetic people if none is named.
WORKDIR/network is what generate and evaluate take. The same command continues an interrupted run.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections.config_dict
from absl import flags as absl_flags

from opom_jax.cli import config as options
from opom_jax.cli.config import check_writable, require, use_precision
from opom_jax.cli.progress import Progress
from opom_jax.data.portrait.head import SIZE
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer
from opom_jax.networks.registry import NETWORKS
from opom_jax.training import loop, sources
from opom_jax.training.settings import Settings
from opom_jax.training.step import Devices

RESUMES = True


def get_config() -> options.Config:
    """The defaults: a small network, ArcFace, synthetic people."""
    return ml_collections.config_dict.create(
        network="ir_small",  # a name of networks/registry.py
        head="arcface",  # or softmax, cosface, sface
        scale=0.0,  # 0: the head's own
        margin=-1.0,  # negative: the head's own
        steps=2000,
        batch=64,  # photos a step
        learning_rate=0.1,  # the highest; muon wants about 0.02, adamw 0.001
        warmup=200,  # steps
        optimizer="sgd",  # or adamw, muon
        weight_decay=5e-4,
        clip=5.0,  # longest gradient
        augment=1.0,  # 0: photos as they are
        seed=0,
        init="",  # folder of a network of this kind to start from, instead of random weights
        precision="float32",  # or "bfloat16": convolutions
        eval_every=500,  # steps
        checkpoint_every=500,  # steps; as much is lost by an interruption
        half=False,  # store the network's kernels in float16
        devices=0,  # to share a batch; 0: all there are
        data=ml_collections.config_dict.create(
            people="",  # a folder with a folder per person; empty: synthetic people
            image_size=112,
            resize=False,  # other sizes: resized, or else refused
            min_photos=2,  # people with fewer are refused
            held_out=20,  # people, the last by name, for verification
            synthetic=ml_collections.config_dict.create(
                first=2_000_000,  # number of the first person; no study uses these
                people=500,
                photos=20,  # of each
                seed=0,
                held_out=50,  # people after those, for verification
            ),
        ),
    )


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    what = "Folder for checkpoints, metrics.jsonl and the network."
    return options.define(flags, argv, what, get_config)


def run(flags: absl_flags.FlagValues) -> None:
    """Checks everything, trains, says where the network is."""
    config, workdir = flags.config, options.workdir(flags)
    settings = Settings(**{name: config[name] for name in Settings.__dataclass_fields__})
    settings.check()
    for key in ("eval_every", "checkpoint_every"):
        _least(key, config[key], 1)
    use_precision(config.precision)
    devices = _devices(config.devices)
    check_writable(workdir)
    loop.check_settings(workdir, settings)
    origin = _origin(config.init, settings)
    given = _data(config.data, lambda photos: settings.check_batch(photos, len(devices)))
    often = loop.Often(config.eval_every, config.checkpoint_every, config.half)
    folder = loop.train(workdir, settings, given, often, devices, _reporter(settings), origin)
    found = recognizer.read_card(folder)["source"]["verification"]
    said = "verification {:.1f} %, mean cosine {:.2f} of one person, {:.2f} of two".format(
        100 * found["accuracy"], found["same"], found["other"]
    )
    print(f"{settings.network}: {folder} ({said})")


def _origin(folder: str, settings: Settings) -> Recognizer | None:
    if not folder:
        return None
    origin = recognizer.load(folder)
    if origin.spec != NETWORKS[settings.network]:
        raise InputError(
            f"config.init={folder!r} is another network than config.network={settings.network!r}; "
            "give one of this kind."
        )
    return origin


def _reporter(settings: Settings) -> loop.Report:
    """The progress line; its clock starts after the first step, which compiles."""
    progress: Progress | None = None

    def report(step: int, said: str) -> None:
        nonlocal progress
        done = step * settings.batch
        progress = progress or Progress("train", "images", done)
        progress(done, settings.steps * settings.batch, said)

    return report


def _devices(count: int) -> Devices:
    found = jax.local_devices()
    require("devices", count, 0 <= count <= len(found), f"between 0 and {len(found)}")
    return found[: count or None]


def _least(key: str, value: Any, wanted: int) -> None:
    require(key, value, value >= wanted, f"{wanted} or more")


def _data(config: options.Config, check: Callable[[int], None]) -> sources.Data:
    """The photos, whose number is checked before they are drawn."""
    size = config.image_size
    require("data.image_size", size, 16 <= size <= 1024, "between 16 and 1024")
    if config.people:
        for key in ("min_photos", "held_out"):
            _least(f"data.{key}", config[key], 2)
        return sources.from_folder(
            config.people,
            size,
            config.resize,
            config.min_photos,
            config.held_out,
            Progress("checking", "photos"),
        )
    drawn = config.synthetic
    for key, wanted in {"first": 0, "people": 2, "photos": 2, "seed": 0, "held_out": 2}.items():
        _least(f"data.synthetic.{key}", drawn[key], wanted)
    require("data.image_size", size, size == SIZE, "112 for synthetic people")
    check(drawn.people * drawn.photos)
    return sources.from_synthetic(
        drawn.first,
        drawn.people,
        drawn.photos,
        drawn.seed,
        drawn.held_out,
        Progress("rendering", "people"),
    )
