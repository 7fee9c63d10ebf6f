"""Checkpoints of a run by orbax: whole or not there, the last two kept.

checkpoints/<step>/state   every array of the TrainState
checkpoints/<step>/record  the configuration of the run it belongs to
"""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from opom_jax import files
from opom_jax.errors import InputError
from opom_jax.training.step import TrainState

KEPT = 2


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
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT,
            enable_async_checkpointing=False,  # the next step overwrites the arrays
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder} cannot be used ({_reason(error)}); choose another --workdir."
            ) from error

    def close(self) -> None:
        self._manager.close()

    def latest(self) -> int:
        """The last step that was stored, 0 if there is none."""
        return self._manager.latest_step() or 0

    def save(self, state: TrainState) -> None:
        """Stores a state under its step; InputError if there is no room."""
        step = int(state.step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_named(state)),  # pyright: ignore[reportCallIssue]
            record=ocp.args.JsonSave(self.record),  # pyright: ignore[reportCallIssue]
        )
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # a full disk is a ValueError of tensorstore
            raise InputError(
                f"{self.folder / str(step)} cannot be written ({_reason(error)}); "
                "make room, then the same command continues."
            ) from error

    def restore(self, like: TrainState) -> TrainState:
        """The last state, bit for bit.

        Args:
          like: shapes, types and shardings (`jax.ShapeDtypeStruct`).

        Raises:
          InputError: the checkpoint of another run, network or head, or a damaged one.
        """
        step = self.latest()
        folder = self.folder / str(step)
        try:
            record = self._manager.restore(
                step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )["record"]
            files.check_same(folder, record, self.record)
            wanted = ocp.args.StandardRestore(_named(like))  # pyright: ignore[reportCallIssue]
            found = self._manager.restore(step, args=ocp.args.Composite(state=wanted))["state"]
        except InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise InputError(
                f"{folder} is damaged or of another network or head ({_reason(error)}); remove "
                "it to go on from the one before, or use another --workdir."
            ) from error
        return jax.tree.unflatten(jax.tree.structure(like), [found[key] for key in _named(like)])


def _named(state: TrainState) -> dict[str, jax.Array]:
    """{path: leaf}, in the order of the leaves."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _reason(error: Exception) -> str:
    reason = str(getattr(error, "strerror", None) or error).strip()
    return reason.splitlines()[0][:200] if reason else type(error).__name__
