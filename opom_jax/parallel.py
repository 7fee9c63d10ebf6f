"""People spread over devices and processes, which exchange nothing.

Masks of different people have nothing to do with one another. Every device computes its own people
with its own copy of the weights, and the compiled step holds no collective; every process takes its
own batches of the list, computes on the devices of its machine and writes files of its own, so that
nothing but the output folder is shared and one that dies can be started again alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from opom_jax.errors import InputError, first_line

PEOPLE = "people"  # the mesh's axis
T = TypeVar("T")


class Share(NamedTuple):
    """What one process does of a run.

    Attributes:
      index: of the process, from 0.
      count: processes of the run.
    """

    index: int = 0
    count: int = 1

    def of(self, batches: Sequence[T]) -> Sequence[T]:
        """Every count-th batch, from the index-th on."""
        return batches[self.index :: self.count]


def join(coordinator: str, share: Share | None) -> Share:
    """Makes this process one of several that know of one another (`jax.distributed`), as TPU pods
    need it; call it before anything is computed. Others only need to know their `Share`.

    One that dies is started again by the same command, while the others go on; only the first one
    leads and must live.

    Args:
      coordinator: host:port of the first process, or "auto" for what the cluster says (Slurm, Open
        MPI, Kubernetes, TPU).
      share: this one of them; None with "auto".

    Raises:
      InputError: they do not find one another.
    """
    jax.config.update("jax_enable_recoverability", True)
    known = {}
    if share:
        known = {"num_processes": share.count, "process_id": share.index}
    try:
        jax.distributed.initialize(None if coordinator == "auto" else coordinator, **known)
    except Exception as error:  # grpc and the clusters raise many kinds
        raise InputError(
            f"--coordinator={coordinator} brings no processes together ({first_line(error)}); "
            "start all of them with the same --coordinator and --processes."
        ) from error
    return Share(jax.process_index(), jax.process_count())


@functools.cache
def mesh(people: int) -> Mesh:
    """The most devices of this process that share so many people evenly, in one row."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if people % n == 0)
    return Mesh(np.array(devices[:count]), (PEOPLE,))


def rounded_up(people: int) -> int:
    """The least number of people from this on that all devices share evenly; with fewer people than
    devices each has one of its own."""
    devices = min(people, jax.local_device_count())
    return -(-people // devices) * devices


def spread(tree: Any) -> Any:
    """Arrays with a leading axis of people, each device its own."""
    return _placed(tree, len(jax.tree.leaves(tree)[0]), PEOPLE)


def replicated(tree: Any, people: int) -> Any:
    """Arrays that every device of so many people has whole, such as weights. What is there already
    is not copied again."""
    return _placed(tree, people)


def _placed(tree: Any, people: int, *axes: str) -> Any:
    on = mesh(people)
    place = NamedSharding(on, PartitionSpec(*axes)) if on.size > 1 else on.devices.item()
    return jax.device_put(tree, place)


class OverPeople:
    """A function of one person, compiled for many, each device computing its own.

    `vmap` with weights that are not mapped merges the photos of all people of a device into one
    batch. On several devices the parts are independent programs: no collective.

    Args:
      function: of one person.
      axes: of each argument: 0 if it has a leading axis of people, None if all people share it.
      donate: arguments whose memory the results may take.

    Calling it is calling the function with people; every result has a leading axis of people.
    """

    def __init__(self, function: Callable, axes: Sequence[int | None], donate: Sequence[int] = ()):
        self.mapped, self.axes, self.donate = jax.vmap(function, tuple(axes)), axes, donate
        self.compiled: dict[Mesh, Any] = {}

    def __call__(self, *arguments) -> Any:
        return self._on(self._mesh(arguments))(*arguments)

    def lower(self, *arguments) -> Any:
        """As `lower` of what `jax.jit` returns."""
        return self._on(self._mesh(arguments)).lower(*arguments)

    def _mesh(self, arguments: Sequence[Any]) -> Mesh:
        pairs = zip(arguments, self.axes, strict=True)
        mapped = [argument for argument, axis in pairs if axis == 0]
        return mesh(len(jax.tree.leaves(mapped)[0]))

    def _on(self, mesh: Mesh) -> Any:
        if mesh not in self.compiled:
            mapped = self.mapped if mesh.size == 1 else self._sharded(mesh)
            self.compiled[mesh] = jax.jit(mapped, donate_argnums=tuple(self.donate))
        return self.compiled[mesh]

    def _sharded(self, mesh: Mesh) -> Callable:
        of_axis = {0: PartitionSpec(PEOPLE), None: PartitionSpec()}
        specs = tuple(of_axis[axis] for axis in self.axes)
        # nothing is shared between devices, so there is nothing to check
        return jax.shard_map(
            self.mapped,
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec(PEOPLE),
            check_vma=False,
        )
