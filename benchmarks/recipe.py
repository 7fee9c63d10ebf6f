"""Deterministic weights for parity tests of networks whose trained weights are not public."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def weights(network: dict[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of one entry of `state_dict_keys_*.json`.

    Args:
      network: {"seed", "gain", "keys": [[name, torch shape, kind], ...]}.

    Returns:
      {torch name: f32 array}; array i is drawn from its own PCG64([seed, i]).
    """
    seed, gain = network["seed"], network["gain"]
    return {
        name: _draw(np.random.Generator(np.random.PCG64([seed, i])), shape, kind, gain)
        for i, (name, shape, kind) in enumerate(network["keys"])
    }


def _draw(rng: np.random.Generator, shape: Sequence[int], kind: str, gain: float) -> np.ndarray:
    if kind == "weight":
        array = rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
    elif kind in ("bias", "bn_bias", "bn_mean"):
        array = rng.standard_normal(shape) * 0.1
    elif kind in ("bn_weight", "bn_var"):
        array = rng.uniform(0.8, 1.2, shape)
    elif kind == "prelu":
        array = rng.uniform(0.1, 0.4, shape)
    else:
        raise ValueError(f"unknown kind {kind!r}")
    return array.astype(np.float32)
