"""bench [--network=NETWORK | --architecture=NAME] [--precision=float32|bfloat16] [--out=FOLDER]

How fast this device makes ConvexHull masks, beside what it can do: a large matrix product, measured
there and then in the same precision. Photos are noise, which takes the same time. --out also gets a
line of CSV with all that is printed, bench_NETWORK_DEVICE_PRECISION_jax-VERSION.csv.
"""

import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from absl import flags as absl_flags

import opom_jax
from opom_jax import speed
from opom_jax.cli.config import use_precision
from opom_jax.errors import InputError
from opom_jax.evaluation.report import write_csv
from opom_jax.files import unusable
from opom_jax.masks import generate as masks
from opom_jax.masks.memory import people_that_fit
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import PRECISIONS, Recognizer
from opom_jax.networks.registry import NETWORKS

NETWORK = "zoo:surrogate_softmax"
MEND = "choose another --out"
TERA, GIB = 1e12, 2**30


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    integer, string = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
    string("network", None, f"Folder of a network; {NETWORK} if none is named.", flag_values=flags)
    string("architecture", None, "Or one with random weights, as ir_50.", flag_values=flags)
    at_once = "On each device at once; 0: what generate takes."
    integer("people", 0, at_once, 0, 10_000, flag_values=flags)
    integer("total", 0, "People in all; 0: one batch.", 0, 1_000_000, flag_values=flags)
    integer("photos", 10, "Of a person.", 1, 1000, flag_values=flags)
    integer("steps", 16, "Of a mask.", 1, 100_000, flag_values=flags)
    absl_flags.DEFINE_enum(
        "precision", "float32", PRECISIONS, "Of convolutions and products.", flag_values=flags
    )
    integer("rounds", 3, "The median of so many is printed.", 1, 1000, flag_values=flags)
    string("out", None, "Folder for the CSV.", flag_values=flags)
    return flags(argv)[1:]


def run(flags: absl_flags.FlagValues) -> None:
    """Measures and prints."""
    use_precision(flags.precision)
    network = _network(flags)
    out = _writable(flags.out) if flags.out is not None else None
    size = network.spec.size
    each = flags.people or people_that_fit(network, flags.photos, size)
    settings = masks.Settings(steps=flags.steps)
    people = flags.total or each * jax.local_device_count()
    everybody = speed.random_people(network, people, flags.photos)
    seen = speed.measure(network, settings, everybody, each, flags.precision, flags.rounds)
    about = _about(flags, network, people) | {"people_per_batch": each}
    row: dict[str, Any] = about | _numbers(seen, people, flags.steps)
    for name, value in row.items():
        print(f"{name.replace('_', ' '):22} {value}")
    if out:
        words = (re.sub(r"\W+", "-", row[key].lower()) for key in ("network", "device"))
        name, device = (word.strip("-") for word in words)
        path = out / f"bench_{name}_{device}_{flags.precision}_jax-{jax.__version__}.csv"
        write_csv(path, list(row), [list(row.values())], MEND)
        print(path)


def _writable(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(folder, error, MEND) from error
    if not name or not os.access(folder, os.W_OK):
        raise InputError(f"--out={name} cannot be written; choose another folder.")
    return folder


def _network(flags: absl_flags.FlagValues) -> Recognizer:
    if flags.architecture is None:
        return recognizer.load(flags.network or NETWORK, flags.precision)
    if flags.network is not None:
        raise InputError("Name a --network or an --architecture, not both.")
    if flags.architecture not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise InputError(f"--architecture={flags.architecture} is unknown; choose from {known}.")
    return speed.random_network(flags.architecture, flags.precision)


def _about(flags: absl_flags.FlagValues, network: Recognizer, people: int) -> dict[str, Any]:
    return {
        "device": speed.device(),
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
        "opom_jax": opom_jax.__version__,
        "jax": jax.__version__,
        "jaxlib": metadata.version("jaxlib"),
        "network": network.name,
        "precision": flags.precision,
        "people": people,
        "photos": flags.photos,
        "steps": flags.steps,
        "rounds": flags.rounds,
    }


def _numbers(seen: speed.Speed, people: int, steps: int) -> dict[str, Any]:
    """Four digits of everything that was measured; a step's share of the clean features counts."""
    step, rate = seen.seconds / steps, seen.operations / seen.seconds
    numbers = {
        "compile_seconds": seen.compile_seconds,
        "seconds_a_step": step,
        "masks_a_second": people / seen.seconds,
        "tflops": rate / TERA,
        "matrix_product_tflops": seen.ceiling / TERA,
        "share_of_ceiling": rate / seen.ceiling,
        "qp_share_of_step": seen.qp_seconds / step,
        "peak_memory_gib": speed.peak_bytes() / GIB,
    }
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}
