"""Reads safetensors files, by the package of that name: no code in them, sizes checked there."""

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from opom_jax.errors import InputError


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{"": {name: array}} of a .safetensors file.

    Args:
      path: the file.

    Raises:
      InputError: unreadable or damaged.
    """
    path = Path(path)
    try:
        return {"": load(path.read_bytes())}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is a damaged safetensors file; save it again.") from error
