"""Checkpoints of a run by orbax: whole or not there, the last two kept.

checkpoints/<step>/state   every array of the state
checkpoints/<step>/record  the configuration of the run it belongs to
checkpoints.json           {step: SHA-256 of its files}, so that damage is seen before it is read
"""

import json
from pathlib import Path
from typing import Protocol, TypeVar

import jax
import orbax.checkpoint as ocp

from opom_jax import files
from opom_jax.errors import InputError, first_line

KEPT = 2


class Stepped(Protocol):
    """A pytree of arrays that counts its steps."""

    @property
    def step(self) -> jax.Array: ...


State = TypeVar("State", bound=Stepped)


class Checkpoints:
    """The checkpoints of one run. Close it after use.

    Args:
      workdir: an existing folder that this process holds.
      record: JSON-like; a checkpoint with another one is refused.

    Raises:
      InputError: the folder cannot be made or read.
    """

    def __init__(self, workdir: Path, record: dict):
        self.folder, self.record = workdir / "checkpoints", record
        self._sums = workdir / "checkpoints.json"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            enable_async_checkpointing=False,  # the next step overwrites the arrays
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.folder.absolute(),
                options=options,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "record": ocp.JsonCheckpointHandler(),
                },
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder} cannot be used ({first_line(error)}); choose another --workdir."
            ) from error

    def close(self) -> None:
        """Frees what orbax holds; the checkpoints stay."""
        self._manager.close()

    def latest(self) -> int:
        """The last step that was stored, 0 if there is none."""
        return self._manager.latest_step() or 0

    def save(self, state: Stepped) -> None:
        """Stores a state under its step; InputError if there is no room."""
        step = int(state.step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_named(state)),  # pyright: ignore[reportCallIssue]
            record=ocp.args.JsonSave(self.record),  # pyright: ignore[reportCallIssue]
        )
        self._keep_digests({})  # an interruption must not leave the digest of an earlier try
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # a full disk is a ValueError of tensorstore
            raise InputError(
                f"{self.folder / str(step)} cannot be written ({first_line(error)}); "
                "make room, then the same command continues."
            ) from error
        self._keep_digests({str(step): files.content_sha256(self.folder / str(step))})

    def _keep_digests(self, more: dict[str, str]) -> None:
        """Of the checkpoints that are there, and no others."""
        kept = self._digests() | more
        there = {str(step) for step in self._manager.all_steps()}
        with files.writing(self._sums) as path:
            path.write_text(json.dumps({key: kept[key] for key in sorted(there & kept.keys())}))

    def restore(self, like: State) -> State:
        """The last state, bit for bit.

        Args:
          like: shapes, types and shardings (`jax.ShapeDtypeStruct`).

        Raises:
          InputError: the checkpoint of another run or network, or a damaged one.
        """
        step = self.latest()
        folder = self.folder / str(step)
        wanted = _named(like)
        try:
            digest = files.content_sha256(folder)
            if self._digests().get(str(step), digest) != digest:
                raise ValueError("not what was stored")
            record = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )["record"]
            files.check_same(folder, record, self.record)
            stored = self._manager.item_metadata(step)["state"]
            if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in wanted.items()}:
                raise ValueError("other arrays than this run has")
            args = ocp.args.StandardRestore(wanted)  # pyright: ignore[reportCallIssue]
            found = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise InputError(
                f"{folder} is damaged or of another network ({first_line(error)}); remove "
                "it to go on from the one before, or use another --workdir."
            ) from error
        return jax.tree.unflatten(jax.tree.structure(like), [found[key] for key in wanted])

    def _digests(self) -> dict[str, str]:
        """{step: SHA-256}; empty if the file is not there or damaged."""
        try:
            found = json.loads(self._sums.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _named(state: Stepped) -> dict[str, jax.Array]:
    """{path: leaf}, in the order of the leaves."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
