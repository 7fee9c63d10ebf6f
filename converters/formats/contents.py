"""The bytes of a file, if it is one: a pipe or a device would be read for ever."""

from pathlib import Path

from opom_jax.errors import InputError


def contents(path: Path, count: int = -1, what: str = "weights file") -> bytes:
    """The first `count` bytes of a regular file, all of them if negative.

    Raises:
      InputError: no such file, a folder, a pipe, a device, one that may not be read, or an empty
        one.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a {what}.")
    try:
        with open(path, "rb") as file:
            found = file.read(count)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read ({reason}); check its permissions.") from error
    if not found:
        raise InputError(f"{path} is empty; fetch it again, or give another {what}.")
    return found
