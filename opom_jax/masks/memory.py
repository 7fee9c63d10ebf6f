"""How many people a device takes at once, and what is said when they are too many."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from opom_jax.errors import InputError, first_line
from opom_jax.networks.recognizer import Recognizer, Team

MOST = 32  # people; with more no device is busier, and the last batch is padded with more
CPU_MEMORY_GIB = 2.0
FREE_SHARE = 0.6  # of an accelerator's free memory
GIB = 2**30


def bytes_per_person(network: Recognizer | Team, photos: int, size: int) -> int:
    """Device memory that a step keeps for one more person, in bytes, found without computing; of a
    team that of all members together.

    Counts what the backward pass needs of the forward pass and five arrays of the photos' size.
    Dropout adds nothing: what it drops is worked out again in the backward pass.
    """
    images = jax.ShapeDtypeStruct((photos, size, size, 3), jnp.float32)
    members = network.members if isinstance(network, Team) else (network,)

    def residuals(masked):
        return [jax.vjp(lambda x, own=own: own.embed(own.params, x), masked)[1] for own in members]

    kept = _bytes(jax.eval_shape(residuals, images)) - _bytes(network.params)
    return max(kept, 0) + 5 * _bytes(images)


def _bytes(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def people_that_fit(
    network: Recognizer | Team, photos: int, size: int, memory_gib: float = 0.0
) -> int:
    """How many people at once fit into the memory budget of a device, 1 to `MOST`.

    Args:
      network: the surrogate.
      photos: of a person, size pixels wide.
      size: of a photo.
      memory_gib: the budget; 0 for 2 on the CPU, 60 % of what is free elsewhere.
    """
    budget = memory_gib * GIB or min(map(_free_bytes, jax.local_devices()))
    return int(min(MOST, max(1.0, budget / bytes_per_person(network, photos, size))))


def evenly(people: int, most: int) -> int:
    """The size of batches of at most `most` that takes no more batches and pads the last least."""
    return -(-people // -(-people // most)) if people else most


@contextmanager
def fitting(people: int, mend: str) -> Iterator[None]:
    """Says that memory is too small for what the block computes.

    Args:
      people: taken at once.
      mend: what the user can do.

    Raises:
      InputError: the block raised that memory is exhausted, of the host or of a device.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"{people} people at once do not fit into memory ({first_line(error)}); {mend}."
        ) from error


def _free_bytes(device) -> float:
    statistics = device.memory_stats()
    if not statistics:  # the CPU keeps none
        return CPU_MEMORY_GIB * GIB
    return FREE_SHARE * (statistics["bytes_limit"] - statistics["bytes_in_use"])
