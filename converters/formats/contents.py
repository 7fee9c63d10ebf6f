"""The bytes of a file, if it is one: a pipe or a device would be read for ever."""

from pathlib import Path

from opom_jax.errors import InputError


def contents(path: Path, count: int = -1) -> bytes:
    """The first `count` bytes of a regular file, all of them if negative.

    Raises:
      InputError: no such file, a folder, a pipe, a device, or one that may not be read.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a weights file.")
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read ({reason}); check its permissions.") from error
