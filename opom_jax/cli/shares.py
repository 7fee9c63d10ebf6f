"""The people of one of several processes: which they are, their photos, looked at and read."""

import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags as absl_flags

from opom_jax import parallel
from opom_jax.cli import refuse
from opom_jax.cli.progress import Progress
from opom_jax.data import images
from opom_jax.data.people import Person
from opom_jax.errors import InputError
from opom_jax.masks.batches import Batch


class Own(NamedTuple):
    """The people of whom this process makes masks.

    Attributes:
      people: all there are.
      most: training photos of one of them.
      ids: the numbers of its own.
      prints: SHA-256 of the training photos of each of these, 32 bytes after 32 bytes.
    """

    people: Sequence[Person]
    most: int
    ids: range
    prints: bytearray

    def agrees(self, line: dict) -> bool:
        """Whether the photos are those of a line of the journal."""
        if line["id"] not in self.ids:
            return True
        return line.get("photos_sha256") == self._print(line["id"])

    def lines(self, ids: Sequence[int], metrics: dict) -> list[dict]:
        """What the journal says of people of a batch, with their metrics {name: [P,...]}."""
        return [
            {
                "name": self.people[person].name,
                "photos": len(self.people[person].train),
                "photos_sha256": self._print(person),
            }
            | {name: values[k].tolist() for name, values in metrics.items()}
            for k, person in enumerate(ids)
        ]

    def batches(self, left: Sequence[int], size: int, data) -> Generator[Batch, None, None]:
        """The photos of these people, `size` at once, read ahead. Every batch has the same shape:
        people and photos that are missing repeat the last person and the first photo and count for
        nothing."""

        def paths(ids: Sequence[int]) -> Iterator[Path]:
            for person in (*ids, *[ids[-1]] * (size - len(ids))):
                own = self.people[person].train
                yield from [*own, *[own[0]] * (self.most - len(own))]

        each = (list(paths(ids)) for ids in groups(left, size))
        read = images.read_batches(each, data.image_size, data.resize)
        for ids, pixels in zip(groups(left, size), read, strict=True):
            counts = np.array([len(self.people[person].train) for person in ids])
            rows = np.minimum(np.arange(size), len(ids) - 1)
            yield Batch(
                np.array(ids, np.int32)[rows],
                pixels.reshape(size, self.most, *pixels.shape[1:]),
                (np.arange(self.most) < counts[rows, None]).astype(np.float32),
            )

    def _print(self, person: int) -> str:
        place = 32 * self.ids.index(person)
        return self.prints[place : place + 32].hex()


def groups(people: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The people, `size` at once."""
    return (people[start : start + size] for start in range(0, len(people), size))


def define(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of several processes."""
    integer, string = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
    integer("processes", 1, "Processes that share the people.", 1, 100_000, flag_values=flags)
    integer("process", 0, "Which of them this is, from 0.", 0, 99_999, flag_values=flags)
    meet = "host:port of process 0, or auto on a cluster; empty: they need not meet."
    string("coordinator", "", meet, flag_values=flags)


def of_this_process(flags: absl_flags.FlagValues) -> parallel.Share:
    """What this process does; InputError for flags that do not fit, processes that do not meet."""
    if flags.process >= flags.processes:
        raise InputError(f"--process={flags.process} must be below --processes={flags.processes}.")
    share = parallel.Share(flags.process, flags.processes)
    if not flags.coordinator:
        return share
    if flags.coordinator == "auto":
        refuse(flags, ("processes", "process"), "--coordinator=auto")
        return parallel.join("auto", None)
    found = re.fullmatch(r".+:(\d{1,5})", flags.coordinator)
    if not found or not 0 < int(found[1]) < 2**16:
        raise InputError(
            f"--coordinator={flags.coordinator} must be host:port, the port between 1 and 65535, "
            "or auto."
        )
    return parallel.join(flags.coordinator, share)


def inspected(people: Sequence[Person], most: int, share: parallel.Share, data) -> Own:
    """The share of this process, every photo of it decoded once; `most` photos a person."""
    ids, prints = share.of(range(len(people))), bytearray()
    progress = Progress("checking", "people")
    groups = (people[person].train for person in ids)
    for digest in images.inspect_each(groups, data.image_size, data.resize):
        prints += bytes.fromhex(digest)
        progress(len(prints) // 32, len(ids))
    return Own(people, most, ids, prints)
