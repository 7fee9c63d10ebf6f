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
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch
from opom_jax.masks.memory import fitting
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
      compile_seconds: of the first step beyond what the second took; 0 if noise exceeds it.
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


def random_people(network: Recognizer, people: int, photos: int) -> Batch:
    """People whose photos are noise of the size that the network takes; InputError if the host has
    no room for them."""
    size = network.spec.size
    shape = people, photos, size, size, 3
    with fitting(people, "take fewer people or photos"):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Batch(np.arange(people, dtype=np.int32), pixels, np.ones((people, photos), "f4"))


def measure(
    network: Recognizer,
    settings: masks.Settings,
    people: Batch,
    size: int,
    precision: str,
    rounds: int,
) -> Speed:
    """Makes the masks of people `rounds` times on all devices, after compiling anew.

    Args:
      network: the surrogate.
      settings: of the masks.
      people: all of them.
      size: how many of them each device takes at once.
      precision: of the matrix product, "float32" or "bfloat16".
      rounds: how often each time is taken.

    Raises:
      InputError: the people do not fit into memory.
    """
    one_step = dataclasses.replace(settings, steps=1)

    def run(settings: masks.Settings = settings) -> None:
        masks.make(network, settings, people, size)

    with fitting(size, "take fewer"), _compiling_anew():
        first, second = (_seconds(lambda: run(one_step)) for _ in range(2))
    devices = parallel.devices_for(len(people.ids), size)
    batches = -(-len(people.ids) // (size * devices))
    return Speed(
        compile_seconds=max(0.0, first - second),
        seconds=median(_seconds(run) for _ in range(rounds)),
        qp_seconds=batches * _qp_seconds(network, people.valid[:size], rounds),
        operations=_operations(network, settings, people),
        ceiling=devices * _ceiling(precision, rounds),
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


def _qp_seconds(network: Recognizer, valid: np.ndarray, rounds: int) -> float:
    """Of the people f32[P,N] of one device; the others solve theirs meanwhile."""
    shape = *valid.shape, network.spec.embedding
    clean, masked = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    solve = jax.jit(jax.vmap(convex_hull))
    return _of_a_call(solve, (normalize(clean), normalize(masked), jnp.asarray(valid)), rounds)


def _operations(network: Recognizer, settings: masks.Settings, people: Batch) -> float:
    """Of the run: start and steps of one person, times people."""
    compiled = masks.generator(network, settings)
    ids, photos, valid = jax.tree.map(lambda array: jnp.asarray(array[:1]), people)
    start = jax.jit(compiled.start)
    state, clean = jax.eval_shape(start, network.params, ids, photos)
    step = jax.jit(compiled.step)
    lowered = (
        start.lower(network.params, ids, photos),
        step.lower(network.params, state, ids, photos, clean, valid, np.int32(0)),
    )
    begin, again = ((program.cost_analysis() or {}).get("flops", np.nan) for program in lowered)
    return len(people.ids) * (begin + settings.steps * again)


def _ceiling(precision: str, rounds: int) -> float:
    device = jax.local_devices()[0]
    side = SIDE.get(device.platform, LARGE_SIDE)
    matrix = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(precision))
    seconds = _of_a_call(jax.jit(jnp.matmul), (matrix, matrix), rounds)
    return 2 * side**3 / seconds
