"""How many people fit on a device at once."""

import jax
import jax.numpy as jnp

from opom_jax.networks.recognizer import Recognizer, Team

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
    """How many people at once fit into the memory budget of a device, at least one.

    Args:
      network: the surrogate.
      photos: of a person, size pixels wide.
      size: of a photo.
      memory_gib: the budget; 0 for 2 on the CPU, 60 % of what is free elsewhere.
    """
    budget = memory_gib * GIB or min(map(_free_bytes, jax.local_devices()))
    return max(1, int(budget // bytes_per_person(network, photos, size)))


def _free_bytes(device) -> float:
    statistics = device.memory_stats()
    if not statistics:  # the CPU keeps none
        return CPU_MEMORY_GIB * GIB
    return FREE_SHARE * (statistics["bytes_limit"] - statistics["bytes_in_use"])
