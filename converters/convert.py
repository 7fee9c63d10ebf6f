"""Strict conversion: every array of the network found once, every name of the file used."""

import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters import formats
from converters.graphs import mxnet, onnx_file
from converters.rules import KINDS, LAYOUTS, Layout
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.graph import Graph, paths
from opom_jax.networks.registry import NETWORKS, Spec

WRAPPERS = ("module.",)  # torch's DataParallel
LISTED = 20  # names that do not fit, at most
SIDE = 112  # pixels of an image, where neither file nor user says


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
      weights: torch file (.pth, .pt, .ckpt; zip or legacy), tensors nested under any key;
        .safetensors; MXNet's .params for the layouts of its families; Keras' .h5 and .keras.
      network: name of the registry.
      out: folder to make; must not exist.
      key: which dict of the file ("state_dict", "a/b"), where more than one could be meant.
      prefix: names to take and what to strip from them, where the layout's own rules do not.

    Returns:
      The folder.

    Raises:
      InputError: unreadable or malicious file, unknown network, names or shapes that do not fit
        (the first `LISTED` of them), existing folder.
    """
    weights, out = Path(weights), Path(out)
    if network not in NETWORKS:
        raise InputError(f"Unknown network {network!r}; choose from {', '.join(NETWORKS)}.")
    if out.exists():
        raise InputError(f"{out} exists already; remove it or choose another --out.")
    arrays = translate(weights, formats.read(weights), network, key, prefix)
    _check_finite(weights, arrays)
    recognizer.save(out, network, arrays, _source(weights))
    return out


# name -> (mean, scale) of (x - mean) * scale on RGB 0..255
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,) * 3, (1.0,) * 3),
    "0..1": ((0.0,) * 3, (1 / 255,) * 3),
    "-1..1": ((127.5,) * 3, (1 / 127.5,) * 3),
    "(x-127.5)/128": ((127.5,) * 3, (1 / 128,) * 3),
    "imagenet": (tuple(255 * m for m in _IMAGENET[0]), tuple(1 / (255 * s) for s in _IMAGENET[1])),
}


def convert_graph(
    weights: os.PathLike | str,
    out: os.PathLike | str,
    *,
    symbol: os.PathLike | str | None = None,
    size: int | None = None,
    output: str | None = None,
    scaling: str | None = None,
    channels: str = "RGB",
) -> Path:
    """Converts a file that holds the whole network into a folder that `recognizer.load` reads.

    Args:
      weights: an ONNX file, or the parameters of MXNet.
      out: folder to make; must not exist.
      symbol: MXNet's symbol file.
      size: side of the image, where the file leaves it open; `SIDE` if not given.
      output: name of the embedding, where it is not the first output.
      scaling: a name of `SCALINGS`; needed unless the graph begins with a scaling of its own.
      channels: "RGB" or "BGR", the order that the network was trained with.

    Returns:
      The folder.

    Raises:
      InputError: as `convert`, and an operator that is not known, with its node, or another size
        than the file states.
    """
    weights, out = Path(weights), Path(out)
    if out.exists():
        raise InputError(f"{out} exists already; remove it or choose another --out.")
    spec, arrays = translate_graph(
        weights, scaling, channels, symbol=symbol, size=size, output=output
    )
    _check_finite(weights, arrays)
    recognizer.save(out, spec, arrays, _source(weights))
    return out


def translate_graph(
    weights: Path,
    scaling: str | None = None,
    channels: str = "RGB",
    *,
    symbol: os.PathLike | str | None = None,
    size: int | None = None,
    output: str | None = None,
) -> tuple[Spec, dict[str, np.ndarray]]:
    """The network of a file and its {path: array}; see `convert_graph`."""
    side = size or SIDE
    if symbol is not None:
        graph, arrays = mxnet.read(symbol, weights, (side, side), output)
    else:
        graph, arrays = onnx_file.read(weights, (side, side), output)
    if size is not None and graph.size != (size, size):
        height, width = graph.size
        raise InputError(f"{weights} takes images of {height} x {width}; leave --size={size} out.")
    if scaling is None and not _scales_itself(graph):
        raise InputError(
            f"{weights} does not say which pixel values it wants; give --scaling, one of "
            f"{', '.join(SCALINGS)}."
        )
    try:
        spec = recognizer.graph_spec(graph, **pixels(scaling or "none", channels))
    except InputError as error:
        raise InputError(f"{weights}: {error}") from error
    where = paths(graph)
    return spec, {where[name]: array for name, array in arrays.items()}


def pixels(scaling: str, channels: str) -> dict[str, Any]:
    """The fields of a `Spec` for a name of `SCALINGS`, whose numbers are RGB's, and an order."""
    mean, scale = SCALINGS[scaling]
    if channels == "BGR":
        mean, scale = mean[::-1], scale[::-1]
    return {"channels": channels, "mean": mean, "scale": scale}


def _scales_itself(graph: Graph) -> bool:
    """Whether the first thing that is done with the image is arithmetic with numbers."""
    readers = [node for node in graph.nodes if graph.input in node.inputs]
    return all(node.operator in ("Sub", "Mul", "Div", "BatchNormalization") for node in readers)


def _check_finite(weights: Path, arrays: Mapping[str, np.ndarray]) -> None:
    if broken := recognizer.not_finite(arrays):
        raise InputError(f"{weights} has values that are not finite in {broken}; mend the file.")


def _source(weights: Path) -> dict[str, str]:
    with open(weights, "rb") as file:
        return {"file": weights.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


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
    groups = _joined(weights, groups, layout)
    wanted = {p: tuple(v.shape) for p, v in recognizer.abstract_params(network).items()}
    if key is not None and key not in groups:
        named = ", ".join(repr(name) for name in groups if name)
        mend = f"choose from {named}" if named else "leave --key out"
        raise InputError(f"{weights} has no tensors under {key!r}; {mend}.")
    candidates = groups if key is None else {key: groups[key]}
    if not candidates:
        raise InputError(f"{weights} holds no tensors; give a file with a state dict.")
    merged = {k: _merge(_strip(g, layout, prefix), layout, wanted) for k, g in candidates.items()}
    fitting = [k for k, (_, problems) in merged.items() if not problems]
    if len(fitting) == 1:
        return merged[fitting[0]][0]
    if len(fitting) > 1:
        raise InputError(f"{weights} fits under several keys; choose with --key: {fitting}.")
    problems = min((problems for _, problems in merged.values()), key=len)
    rest = len(problems) - LISTED
    raise InputError(
        f"{weights} does not fit network {network!r} (- missing, + unexpected, ! other shape); "
        "check --network and --prefix:\n"
        + "\n".join(problems[:LISTED])
        + (f"\n and {rest} more" if rest > 0 else "")
    )


def _joined(weights: Path, groups: Mapping[str, Mapping[str, np.ndarray]], layout: Layout):
    """What the layout says makes one network together as one group, else the groups as they are."""
    if not layout.groups or groups.keys() != {*layout.groups}:
        return groups
    joined = {name: array for group in groups.values() for name, array in group.items()}
    if len(joined) < sum(map(len, groups.values())):
        raise InputError(f"{weights} names an array twice; give the file as it was saved.")
    return {"": joined}


def _strip(group: Mapping[str, np.ndarray], layout: Layout, prefix: str | None):
    ignored = re.compile(layout.ignored)
    names = {name: array for name, array in group.items() if not ignored.fullmatch(name)}
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
            problems.append(f" + {_shown(name)} {array.shape}")
            continue
        path, transform, dimensions = target
        shape = wanted[path]
        fits = array.ndim == dimensions and array.size == np.prod(shape)
        converted = transform(array, shape) if fits and transform else array
        if not fits or converted.shape != shape:
            problems.append(f" ! {_shown(name)} {array.shape}, wanted for {path} {shape}")
            converted = np.zeros(shape, np.float32)
        if transform is None:
            continue
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, refused later
            arrays[path] = np.ascontiguousarray(converted, np.float32)
    problems += [f" - {path} {wanted[path]}" for path in wanted if path not in arrays]
    return arrays, sorted(problems)


def _shown(name: str) -> str:
    """A name of the file, which can hold anything, for a terminal."""
    return ascii(name)[1:-1][:200]


def _target(name: str, layout: Layout):
    """(Flax path, transform, dimensions in the file) of a name, or None."""
    parts = re.fullmatch(layout.name, name)
    prefix, leaf = parts.groups() if parts else (name, "")
    for pattern, path, kind in _compiled(layout):
        match = pattern.fullmatch(prefix)
        if match and leaf in KINDS[kind]:
            flax_leaf, transform, dimensions = KINDS[kind][leaf]
            return f"{match.expand(path)}/{flax_leaf}", transform, dimensions
    return None


@functools.cache
def _compiled(layout: Layout) -> list[tuple[re.Pattern[str], str, str]]:
    """The rules; large networks have more than `re` remembers."""
    return [(re.compile(pattern), path, kind) for pattern, path, kind in layout.rules]
