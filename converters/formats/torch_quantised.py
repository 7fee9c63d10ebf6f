"""Quantised tensors of torch files, and the quantised linear layers that hold them.

A layer that torch's `quantize_dynamic` made is stored as `NAME._packed_params._packed_params`, the
tuple (weight, bias); here it becomes the `NAME.weight` and `NAME.bias` of a plain layer. The scale
and zero point of its outputs are left out: what is converted computes in floats.
"""

from collections.abc import Callable, Iterable

import numpy as np

from converters.formats.torch_pickle import Tensor

_PACKED = "_packed_params._packed_params"
SCHEMES = ("per_tensor_affine", "per_channel_affine")
QUANTISED_GROWTH = 4  # bytes of a float32 for each of an int8


def named_tensors(pairs: Iterable[tuple]) -> dict[str, Tensor]:
    """{name: tensor} of a dict's (key, value) pairs, quantised linear layers under plain names."""
    named = [(key, value) for key, value in pairs if isinstance(key, str)]
    layers = {key.removesuffix(_PACKED) for key, _ in named if key.endswith(_PACKED)}
    outputs = {layer + leaf for layer in layers for leaf in ("scale", "zero_point")}
    found = {}
    for key, value in named:
        if key.endswith(_PACKED) and isinstance(value, tuple):
            layer = key.removesuffix(_PACKED)
            found |= zip((f"{layer}weight", f"{layer}bias"), value, strict=True)
        elif key not in outputs:
            found[key] = value
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def dequantised(
    stored: np.ndarray, quantiser: tuple, read: Callable[[Tensor], np.ndarray]
) -> np.ndarray:
    """(stored - zero point) * scale, f32 in the shape of `stored`.

    Args:
      stored: i8, any shape.
      quantiser: (scheme of `SCHEMES`, scale, zero point), each a number; or per channel two tensors
        with one number for every place along an axis, and that axis.
      read: gives the values of a tensor.

    Raises:
      ValueError, TypeError, IndexError, OverflowError: no quantiser, or not of this shape.
    """
    scheme, scale, zero_point, *axis = quantiser
    if scheme == SCHEMES[1]:
        shape = [1] * stored.ndim
        shape[axis[0]] = stored.shape[axis[0]]
        scale, zero_point = (read(tensor).reshape(shape) for tensor in (scale, zero_point))
    elif scheme != SCHEMES[0] or axis or type(scale) is not float or type(zero_point) is not int:
        raise ValueError("no affine quantiser")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        values = stored.astype(np.float32)
        values -= np.float32(zero_point)
        values *= np.float32(scale)
    return values
