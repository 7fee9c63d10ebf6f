"""List files: UTF-8 text, one entry a line, every photo an existing file inside a root folder."""

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from opom_jax.errors import InputError

LIST_FORMATS = ("path", "megaface")
MAX_BYTES = 2**30  # of a list; a million distractors have a tenth
_SHOWN = 200  # characters of an entry, in errors

StrPath = str | os.PathLike[str]


def read_lines(path: StrPath) -> Iterator[tuple[str, str]]:
    """(where it is, as errors name it; text without surrounding blanks) of the lines that are not
    blank; InputError for an unreadable list, or for a line when its turn comes."""
    for number, line in enumerate(_raw_lines(path), start=1):
        where = f"line {number} of {str(path)!r}"
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8 text; save the list as UTF-8.") from error
        if text:
            yield where, text


def _raw_lines(path: StrPath) -> Iterator[bytes]:
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):  # a named pipe would be waited for
            raise ValueError("no regular file")
        if state.st_size > MAX_BYTES:
            raise ValueError(f"{state.st_size} bytes, too many for a list")
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                yield line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
    except (OSError, ValueError) as error:
        raise unreadable(path, "list", error) from error


def photo(root: StrPath, entry: str, where: str) -> Path:
    """The photo that a line names; InputError if it is no file, or not inside the root."""
    if "\0" in entry:
        raise InputError(f"{where} holds a NUL byte; save the list as UTF-8 text.")
    shown = repr(entry if len(entry) <= _SHOWN else f"{entry[:_SHOWN]}…")
    if Path(entry).anchor or os.path.normpath(entry).split(os.sep)[0] == os.pardir:
        raise InputError(f"{where} leaves the root with {shown}; give a path inside the root.")
    path = Path(root, entry)
    if not os.path.isfile(path):
        raise InputError(f"{where} names {shown}, which is no file in {str(root)!r}; mend either.")
    return path


def read_list(path: StrPath, root: StrPath, list_format: str) -> Iterator[Path]:
    """The photos of a list file, at least one, in its order.

    Args:
      path: one entry a line, blank lines ignored.
      root: the folder that the entries are relative to.
      list_format: "path" (the whole line) or "megaface" (the second column).

    Raises:
      InputError: an unknown format, an unreadable or empty list, a bad line or missing photo, when
        its turn comes.
    """
    if list_format not in LIST_FORMATS:
        raise InputError(f"list_format is {list_format!r}; give one of {', '.join(LIST_FORMATS)}.")
    empty = True
    for where, text in read_lines(path):
        entry = text if list_format == "path" else _second_column(text, where)
        yield photo(root, entry, where)
        empty = False
    if empty:
        raise InputError(f"{str(path)!r} is empty; give a list with one path a line.")


def unreadable(path: StrPath, what: str, error: Exception) -> InputError:
    """The sentence for a list or folder that cannot be read."""
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{str(path)!r} cannot be read ({reason}); give a readable {what}.")


def _second_column(text: str, where: str) -> str:
    columns = text.split()
    if len(columns) < 2:
        raise InputError(f"{where} has no second column; set list_format to 'path'.")
    return columns[1]
