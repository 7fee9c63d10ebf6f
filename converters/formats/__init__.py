"""Readers of weight files: a file becomes named NumPy arrays, without the file's own framework."""

import os
from pathlib import Path

import numpy as np

from converters.formats import keras_file, mxnet_file, safetensors_file, torch_file
from converters.formats.contents import contents

_TORCH = (b"PK", b"\x80")  # an archive, a pickle
_READERS = {
    ".h5": keras_file.read,
    ".hdf5": keras_file.read,
    ".params": mxnet_file.read,
    ".safetensors": safetensors_file.read,
}


def read(path: os.PathLike | str) -> dict[str, dict[str, np.ndarray]]:
    """{group: {name: array}} of a weights file, whose format its first bytes tell, or else its
    name.

    Args:
      path: torch (zip, legacy), safetensors, MXNet's .params, Keras' .h5 and .keras.

    Raises:
      InputError: unreadable, damaged, hostile.
    """
    path = Path(path)
    head, suffix = contents(path, 16), path.suffix.lower()
    if head.startswith(keras_file.HDF5) or suffix == ".keras":
        return keras_file.read(path)
    if head == mxnet_file.HEAD:
        return mxnet_file.read(path)
    if head[8:9] == b"{":
        return safetensors_file.read(path)
    if head.startswith(_TORCH):
        return torch_file.read(path)
    return _READERS.get(suffix, torch_file.read)(path)
