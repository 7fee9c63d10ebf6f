"""Strict conversion: every array of the network found once, every name of the file used."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.formats import torch_file
from converters.rules import KINDS, LAYOUTS, Layout
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.registry import NETWORKS

IGNORED = re.compile(r"(^|\.)num_batches_tracked$")
WRAPPERS = ("module.",)  # torch's DataParallel


def convert(
    weights: os.PathLike | str,
    network: str,
    out: os.PathLike | str,
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Path:
    """Converts a weights file into a folder that `recognizer.load` reads.

    Args:
      weights: torch file (.pth, .pt, .ckpt; zip or legacy), tensors nested under any key.
      network: name of the registry.
      out: folder to make; must not exist.
      key: which dict of the file ("state_dict", "a/b"), where more than one could be meant.
      prefix: names to take and what to strip from them, where the layout's own rules do not.

    Returns:
      The folder.

    Raises:
      InputError: unreadable or malicious file, unknown network, names or shapes that do not fit
        (all of them listed), existing folder.
    """
    weights, out = Path(weights), Path(out)
    if network not in NETWORKS:
        raise InputError(f"Unknown network {network!r}; choose from {', '.join(NETWORKS)}.")
    if out.exists():
        raise InputError(f"{out} exists already; remove it or choose another --out.")
    arrays = translate(weights, torch_file.read(weights), network, key, prefix)
    broken = sorted(path for path, array in arrays.items() if not np.isfinite(array).all())
    if broken:
        raise InputError(f"{weights} has values that are not finite in {broken[0]}; mend the file.")
    with open(weights, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    recognizer.save(out, network, arrays, {"file": weights.name, "sha256": sha256})
    return out


def translate(
    weights: Path,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    network: str,
    key: str | None = None,
    prefix: str | None = None,
) -> dict[str, np.ndarray]:
    """{path: array} of the network from the groups of tensors in a file; see `convert`."""
    if NETWORKS[network].layout not in LAYOUTS:
        raise InputError(f"No published weights of network {network!r} can be read; train it here.")
    layout = LAYOUTS[NETWORKS[network].layout]
    wanted = {p: tuple(v.shape) for p, v in recognizer.abstract_params(network).items()}
    if key is not None and key not in groups:
        raise InputError(f"{weights} has no tensors under {key!r}; it has {_listed(groups)}.")
    candidates = groups if key is None else {key: groups[key]}
    if not candidates:
        raise InputError(f"{weights} holds no tensors; give a file with a state dict.")
    merged = {k: _merge(_strip(g, layout, prefix), layout, wanted) for k, g in candidates.items()}
    fitting = [k for k, (_, problems) in merged.items() if not problems]
    if len(fitting) == 1:
        return merged[fitting[0]][0]
    if len(fitting) > 1:
        raise InputError(f"{weights} fits under several keys; choose with --key: {fitting}.")
    best = min(merged, key=lambda k: len(merged[k][1]))
    raise InputError(
        f"{weights} does not fit network {network!r} (- missing, + unexpected, ! other shape); "
        "check --network and --prefix:\n" + "\n".join(merged[best][1])
    )


def _strip(group: Mapping[str, np.ndarray], layout: Layout, prefix: str | None):
    names = {name: array for name, array in group.items() if not IGNORED.search(name)}
    if prefix is not None:
        return {n.removeprefix(prefix): a for n, a in names.items() if n.startswith(prefix)}
    for wrapper in (*WRAPPERS, *layout.prefixes):
        if names and all(name.startswith(wrapper) for name in names):
            names = {name.removeprefix(wrapper): array for name, array in names.items()}
    return names


def _merge(group, layout: Layout, wanted: Mapping[str, tuple[int, ...]]):
    """Arrays of the network, and the sorted list of what is missing, unexpected or misshapen."""
    arrays, problems = {}, []
    for name, array in group.items():
        target = _target(name, layout)
        if target is None or target[0] not in wanted:
            problems.append(f" + {name} {array.shape}")
            continue
        path, transform, dimensions = target
        shape = wanted[path]
        fits = array.ndim == dimensions and array.size == np.prod(shape)
        converted = transform(array, shape) if fits else array
        if not fits or converted.shape != shape:
            problems.append(f" ! {name} {array.shape}, wanted for {path} {shape}")
            converted = np.zeros(shape, np.float32)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, refused later
            arrays[path] = np.ascontiguousarray(converted, np.float32)
    problems += [f" - {path} {wanted[path]}" for path in wanted if path not in arrays]
    return arrays, sorted(problems)


def _target(name: str, layout: Layout):
    """(Flax path, transform, dimensions in the file) of a name, or None."""
    prefix, _, leaf = name.rpartition(".")
    for pattern, path, kind in layout.rules:
        match = re.fullmatch(pattern, prefix)
        if match and leaf in KINDS[kind]:
            flax_leaf, transform, dimensions = KINDS[kind][leaf]
            return f"{match.expand(path)}/{flax_leaf}", transform, dimensions
    return None


def _listed(groups) -> str:
    return ", ".join(repr(k) for k in groups) or "none at all"
