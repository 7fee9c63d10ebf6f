"""How fast this device makes masks, and how fast it could: what the verb `bench` prints."""

import dataclasses
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from opom_jax import parallel
from opom_jax.errors import InputError, first_line
from opom_jax.masks import generate as masks
from opom_jax.masks.subspaces import convex_hull
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import Recognizer, normalize
from opom_jax.networks.registry import NETWORKS

SIDE = {"cpu": 2048}  # of the matrices whose product is the ceiling
LARGE_SIDE = 8192  # on accelerators
REPEATS = 10  # calls in a row of what takes less than a step


class Speed(NamedTuple):
    """Medians of what was measured.

    Attributes:
      compile_seconds: of the first step beyond what the second took.
      seconds: from photos in memory to masks in memory.
      qp_seconds: of the simplex QPs of a step.
      operations: of the whole run (floating point, as XLA counts the program before it compiles it:
        afterwards what a library computes is not counted).
      ceiling: operations a second of a matrix product on all devices that the people share.
    """

    compile_seconds: float
    seconds: float
    qp_seconds: float
    operations: float
    ceiling: float


def random_network(architecture: str, precision: str) -> Recognizer:
    """A network of the registry as it is before any training."""
    _, state = nnx.split(NETWORKS[architecture].build(nnx.Rngs(0)))
    arrays = {path: np.asarray(array[...]) for path, array in recognizer.flat(state).items()}
    return recognizer.recognizer(architecture, arrays, precision=precision)


def random_people(network: Recognizer, people: int, photos: int) -> masks.Batch:
    """People whose photos are noise of the size that the network takes."""
    size = network.spec.size
    pixels = np.random.default_rng(0).integers(0, 256, (people, photos, size, size, 3), np.uint8)
    return masks.Batch(np.arange(people, dtype=np.int32), pixels, np.ones((people, photos), "f4"))


def measure(
    network: Recognizer,
    settings: masks.Settings,
    batch: masks.Batch,
    precision: str,
    rounds: int,
) -> Speed:
    """Makes the masks of a batch `rounds` times, after compiling anew.

    Args:
      network: the surrogate.
      settings: of the masks.
      batch: people.
      precision: of the matrix product, "float32" or "bfloat16".
      rounds: how often each time is taken.

    Raises:
      InputError: the people do not fit into memory.
    """
    compiled = masks.generator(network, settings)
    one_step = dataclasses.replace(settings, steps=1)

    def run(settings: masks.Settings = settings) -> None:
        masks.generate(compiled, network.params, settings, batch)

    try:
        with _compiling_anew():
            first, second = (_seconds(lambda: run(one_step)) for _ in range(2))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"{len(batch.ids)} people do not fit into memory ({first_line(error)}); take fewer."
        ) from error
    return Speed(
        compile_seconds=first - second,
        seconds=median(_seconds(run) for _ in range(rounds)),
        qp_seconds=_qp_seconds(network, batch, rounds),
        operations=_operations(compiled, network, settings, batch),
        ceiling=parallel.mesh(len(batch.ids)).size * _ceiling(precision, rounds),
    )


def processor() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def device() -> str:
    """The name of what computes."""
    used = jax.local_devices()[0]
    return processor() if used.platform == "cpu" else used.device_kind


def peak_bytes() -> int:
    """The most memory that was in use at once: of a device, or of this process on the CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _compiling_anew() -> Iterator[None]:
    """Without the persistent cache."""
    before = jax.config.jax_enable_compilation_cache  # pyright: ignore
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _seconds(call: Callable) -> float:
    began = perf_counter()
    jax.block_until_ready(call())
    return perf_counter() - began


def _of_a_call(function: Callable, arguments: tuple, rounds: int) -> float:
    """Seconds of a call of a jitted function among many, the best of the rounds."""

    def repeated():
        return [function(*arguments) for _ in range(REPEATS)]  # all: a CPU keeps no order

    repeated()  # compiles
    return min(_seconds(repeated) for _ in range(rounds)) / REPEATS


def _qp_seconds(network: Recognizer, batch: masks.Batch, rounds: int) -> float:
    """Of the people of one device; the others solve theirs meanwhile."""
    valid = batch.valid[:: parallel.mesh(len(batch.ids)).size]
    shape = *valid.shape, network.spec.embedding
    clean, masked = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    solve = jax.jit(jax.vmap(convex_hull))
    return _of_a_call(solve, (normalize(clean), normalize(masked), jnp.asarray(valid)), rounds)


def _operations(
    compiled: masks.Generator, network: Recognizer, settings: masks.Settings, batch: masks.Batch
) -> float:
    """Of the run: start and steps of one person, times people."""
    ids, photos, valid = jax.tree.map(lambda array: jnp.asarray(array[:1]), batch)
    start = jax.jit(compiled.start)
    state, clean = jax.eval_shape(start, network.params, ids, photos)
    step = jax.jit(compiled.step)
    lowered = (
        start.lower(network.params, ids, photos),
        step.lower(network.params, state, ids, photos, clean, valid, np.int32(0)),
    )
    begin, again = ((program.cost_analysis() or {})["flops"] for program in lowered)
    return len(batch.ids) * (begin + settings.steps * again)


def _ceiling(precision: str, rounds: int) -> float:
    device = jax.local_devices()[0]
    side = SIDE.get(device.platform, LARGE_SIDE)
    matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(precision))
    seconds = _of_a_call(jax.jit(jnp.matmul), (matrix, matrix), rounds)
    return 2 * side**3 / seconds
