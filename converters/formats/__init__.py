"""Readers of weight files: a file becomes named NumPy arrays, without the file's own framework."""

import os
from pathlib import Path

import numpy as np

from converters.formats import keras_file, mxnet_file, safetensors_file, torch_file
from converters.formats.contents import contents


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{group: {name: array}} of a weights file, whose format its first bytes tell.

    Args:
      path: torch (zip, legacy), safetensors, MXNet's .params, Keras' .h5 and .keras.

    Raises:
      InputError: unreadable, damaged, hostile.
    """
    path = Path(path)
    head = contents(path, 16)
    if head.startswith(keras_file.HDF5) or path.suffix == ".keras":
        return keras_file.read(path)
    if head == mxnet_file.HEAD:
        return mxnet_file.read(path)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return safetensors_file.read(path)
    return torch_file.read(path)
