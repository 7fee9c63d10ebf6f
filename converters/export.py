"""The way back: a network's arrays under the names of its published layout, for torch.

The tables of `rules/` are read from right to left, so a family needs nothing more to be exported.
What is made is converted again and compared before it is kept.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from converters import rules
from converters.convert import translate
from converters.rules import KINDS, LAYOUTS, Layout
from opom_jax import files
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.registry import NETWORKS

# transform of a rule -> its inverse
INVERSES: dict[object, Callable[[np.ndarray], np.ndarray]] = {
    rules.same: lambda array: array,
    rules.conv: lambda array: array.transpose(3, 2, 0, 1),
    rules.depthwise: lambda array: array.transpose(2, 0, 1)[:, None],
    rules.dense: lambda array: array.T,
    rules.flat_dense: lambda array: array.transpose(3, 2, 0, 1).reshape(array.shape[3], -1),
}
TORCH = [name for name in LAYOUTS if not name.startswith(("keras_", "mxnet_"))]
_GROUP = re.compile(r"\((?:\?P<(\w+)>)?([^()]*)\)")


def export(folder: os.PathLike | str, out: os.PathLike | str) -> Path:
    """Writes a network as a .safetensors file that its torch original loads, strictly.

    Args:
      folder: of the network, or zoo:NAME, models:NAME.
      out: file to make; must not exist.

    Returns:
      The file.

    Raises:
      InputError: an unreadable folder, a network that torch has no layout for, a file that
        exists or cannot be written.
    """
    out = Path(out)
    if os.path.exists(out):  # False, no error, for a name that no file can have
        raise InputError(f"{out} exists already; remove it or choose another --out.")
    network = recognizer.load(folder)
    name = recognizer.read_card(recognizer.resolved(folder))["network"]
    arrays = {path: np.asarray(v[...]) for path, v in recognizer.flat(network.params).items()}
    tensors = state_dict(name, arrays)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.writing(out, mend="choose another --out") as partial:
            partial.write_bytes(safetensors.numpy.save(tensors))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{out} cannot be written ({reason}); choose another --out.") from error
    return out


def state_dict(network: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{torch name: f32 array in torch's order} of {path: array}.

    Raises:
      InputError: a network that torch has no layout for.
    """
    layout = NETWORKS[network].layout if network in NETWORKS else ""
    if layout not in TORCH:
        raise InputError(f"Network {network!r} has no layout in torch; export one that has.")
    inverted = list(_inverted(LAYOUTS[layout]))
    tensors = {}
    for path, array in arrays.items():
        found = ((p.fullmatch(path), name, back) for p, name, back in inverted)
        match, name, back = next(candidate for candidate in found if candidate[0])
        tensors[name(match)] = np.ascontiguousarray(back(array))
    again = translate(Path(network), {"": tensors}, network)
    if any(not np.array_equal(again[path], array) for path, array in arrays.items()):
        raise AssertionError(f"the rules of {layout} cannot be read backwards")
    return tensors


def _inverted(layout: Layout) -> Iterator[tuple[re.Pattern, Callable, Callable]]:
    """(pattern of a path, match -> name in the file, inverse transform) of every leaf of a rule."""
    for pattern, path, kind in layout.rules:
        for leaf, (ours, transform, _) in KINDS[kind].items():
            groups = {str(k): g for k, g in enumerate(_GROUP.finditer(pattern), 1)}
            groups |= {g[1]: g for g in groups.values() if g[1]}
            whole = re.compile(_path_pattern(path, groups) + "/" + re.escape(ours))
            yield whole, _namer(pattern, leaf, groups), INVERSES[transform]


def _path_pattern(path: str, groups: Mapping[str, re.Match]) -> str:
    """A path template as a pattern whose groups are g1, g2, ..., as numbered in the rule."""
    parts = re.split(r"\\(?:g<)?(\w+)>?", path)
    seen, pattern = set(), ""
    for k, part in enumerate(parts):
        if k % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P=g{part})" if part in seen else f"(?P<g{part}>{groups[part][2]})"
            seen.add(part)
    return pattern


def _namer(pattern: str, leaf: str, groups: Mapping[str, re.Match]) -> Callable[[re.Match], str]:
    """match of a path -> the name that the rule's pattern would take it from."""
    keys = {group.start(): key for key, group in groups.items()}

    def name(match: re.Match) -> str:
        known = match.groupdict()
        prefix = _GROUP.sub(lambda g: known.get(f"g{keys[g.start()]}", g[2]), pattern)
        return f"{prefix}.{leaf}".replace("\\.", ".").removeprefix(".")

    return name
