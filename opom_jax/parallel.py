"""People spread over devices and processes, which exchange nothing.

Masks of different people have nothing to do with one another. Every device computes its own people
with its own copy of the weights, and the compiled step holds no collective; every process takes its
own people of the list, computes on the devices of its machine and writes files of its own, so that
nothing but the output folder is shared and one that dies can be started again alone.
"""

import functools
import socket
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from opom_jax.errors import InputError, first_line

PEOPLE = "people"  # the mesh's axis
A_WEEK = 7 * 24 * 3600  # seconds
PATIENCE = 300  # seconds, as jax itself


class Share(NamedTuple):
    """What one process does of a run.

    Attributes:
      index: of the process, from 0.
      count: processes of the run.
    """

    index: int = 0
    count: int = 1

    def of(self, people: range) -> range:
        """Every count-th person, from the index-th on."""
        return people[self.index :: self.count]


WHOLE = Share()


def join(coordinator: str, share: Share | None) -> Share:
    """Makes this process one of several that know of one another (`jax.distributed`), as TPU pods
    need it; call it before anything is computed. Others only need to know their `Share`.

    They end together: who has finished waits at its exit for the rest, and if one dies all are to
    be started again.

    Args:
      coordinator: host:port of the first process; says nothing without a share.
      share: this one of them; None for what the cluster says (Slurm, Open MPI, Kubernetes, TPU).

    Raises:
      InputError: the coordinator cannot be reached. (If it can and others never come, jax itself
        ends the process, after five minutes.)
    """
    meet = partial(jax.distributed.initialize, shutdown_timeout_seconds=A_WEEK)
    try:
        if share:
            _reach(coordinator, first=share.index == 0)
            meet(coordinator, num_processes=share.count, process_id=share.index)
        else:
            meet()
        jax.local_devices()  # waits for the others
    except Exception as error:  # grpc and the clusters raise many kinds
        mend = "start all of them with the same --coordinator and --processes"
        if share is None:
            mend = "start them on a cluster that jax.distributed knows, or give host:port"
        raise InputError(
            f"--coordinator={coordinator} brings no processes together ({first_line(error)}); "
            f"{mend}."
        ) from error
    return Share(jax.process_index(), jax.process_count())


def _reach(coordinator: str, first: bool) -> None:
    """Raises OSError where jax, which waits in C++, would abort the process: for the first one if
    the host is unknown or the port is taken, for others if nobody answers for `PATIENCE`."""
    host, _, port = coordinator.rpartition(":")
    address = host.strip("[]"), int(port)
    if first:
        socket.getaddrinfo(*address)
        socket.create_server(("", address[1])).close()
        return
    end = monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(address, timeout=PATIENCE).close()
        except OSError:
            if monotonic() > end:
                raise
            sleep(1)


def devices_for(people: int, size: int) -> int:
    """How many devices of this process so many people need, at most `size` on each; one if there
    are none."""
    return max(1, min(jax.local_device_count(), -(-people // size)))


def spread(tree: Any, devices: int) -> Any:
    """Arrays with a leading axis of people on that many devices, each device its even share."""
    return _placed(tree, _mesh(devices), PEOPLE)


def replicated(tree: Any, like: Any) -> Any:
    """Arrays that all people share, such as weights, whole on every device that holds the array
    `like`; what is there already is not copied."""
    return _placed(tree, _mesh(len(like.sharding.device_set)))


@functools.cache
def _mesh(devices: int) -> Mesh:
    """The first devices of this process in a row."""
    return Mesh(np.array(jax.local_devices()[:devices]), (PEOPLE,))


def _placed(tree: Any, mesh: Mesh, *axes: str) -> Any:
    several = mesh.size > 1
    place = NamedSharding(mesh, PartitionSpec(*axes)) if several else mesh.devices.item()
    return jax.device_put(tree, place)


class OverPeople:
    """A function of one person, compiled for many, each device computing its own.

    It runs where the people are (`spread`). `vmap` with weights that are not mapped merges the
    photos of all people of a device into one batch; the parts of several devices are independent
    programs, without a collective, and each is the program of one device.

    Args:
      function: of one person.
      axes: of each argument: 0 if it has a leading axis of people, None if all people share it.
      donate: arguments whose memory the results may take.

    Calling it is calling the function with people; every result has a leading axis of people.
    """

    def __init__(self, function: Callable, axes: Sequence[int | None], donate: Sequence[int] = ()):
        self.mapped, self.axes, self.donate = jax.vmap(function, tuple(axes)), axes, donate
        self.compiled: dict[int, Any] = {}

    def __call__(self, *arguments) -> Any:
        return self._for(arguments)(*arguments)

    def lower(self, *arguments) -> Any:
        """As `lower` of what `jax.jit` returns."""
        return self._for(arguments).lower(*arguments)

    def _for(self, arguments: Sequence[Any]) -> Any:
        pairs = zip(arguments, self.axes, strict=True)
        people = jax.tree.leaves([argument for argument, axis in pairs if axis == 0])[0]
        where = getattr(people, "sharding", None)  # none on the host, nor while tracing
        devices = len(where.device_set) if where else 1
        if devices not in self.compiled:
            mapped = self.mapped if devices == 1 else self._sharded(_mesh(devices))
            self.compiled[devices] = jax.jit(mapped, donate_argnums=tuple(self.donate))
        return self.compiled[devices]

    def _sharded(self, mesh: Mesh) -> Callable:
        of_axis = {0: PartitionSpec(PEOPLE), None: PartitionSpec()}
        return jax.shard_map(
            self.mapped,
            mesh=mesh,
            in_specs=tuple(of_axis[axis] for axis in self.axes),
            out_specs=PartitionSpec(PEOPLE),
            check_vma=False,  # no value is shared: there is nothing to check
        )
