"""Reads safetensors files, by the package of that name: no code in them, sizes checked there."""

import json
import os
import struct
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from converters.formats.contents import contents
from opom_jax.errors import InputError


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{"": {name: array}} of a .safetensors file.

    Args:
      path: the file.

    Raises:
      InputError: unreadable or damaged.
    """
    path = Path(path)
    content = contents(path)
    try:
        arrays = load(content)
        _check_names(content)
        return {"": arrays}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is a damaged safetensors file; save it again.") from error


def _check_names(content: bytes) -> None:
    """Raises ValueError for a name that comes twice, of which the package keeps the last."""

    def once(pairs: list[tuple]) -> None:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name twice")

    (length,) = struct.unpack_from("<Q", content)
    json.loads(content[8 : 8 + length], object_pairs_hook=once)
