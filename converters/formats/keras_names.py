"""Names of Keras' arrays as "LAYER.VARIABLE", whatever generation of Keras wrote the file.

* before Keras 3, and its .h5: [model_weights/]LAYER/SCOPE/.../VARIABLE[:0]
* Keras 3's .weights.h5 and .keras: layers/CLASS[_K]/LAYER/NUMBER, after the reader has put the
  layer's name, an attribute, in the place of "vars"; the first of them lack it, and keep "vars"
  unless the configuration in a .keras tells.

Layers that Keras named itself are numbered from 0 in the order of their numbers ("conv2d_7",
"conv2d_9" -> "conv2d_0", "conv2d_1"), which depend on what else was built in that process.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

# class in a path -> its variables in order; those before "beta" may be missing
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "locally_connected2d": ("kernel", "bias"),
    "p_re_lu": ("alpha",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
CLASSES = {
    "Conv2D": "conv2d",
    "Dense": "dense",
    "LocallyConnected2D": "locally_connected2d",
    "PReLU": "p_re_lu",
    "BatchNormalization": "batch_normalization",
}
NUMBER = re.compile(r"[0-9]{1,3}")
AUTOMATIC = re.compile(rf"({'|'.join(VARIABLES)})(?:_([0-9]{{1,9}}))?")


def places(configuration: bytes) -> dict[str, str]:
    """{"conv2d_1": "conv1"}: CLASS[_K] -> LAYER by a .keras file's config.json; {} if it is none.

    Keras counts the layers of a class in the order of the configuration.
    """
    counts, found = Counter(), {}
    try:
        for layer in json.loads(configuration)["config"]["layers"]:
            if kind := CLASSES.get(layer["class_name"]):
                place = f"{kind}_{counts[kind]}" if counts[kind] else kind
                found[place] = str(layer["config"]["name"])
                counts[kind] += 1
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return found


def named(
    arrays: Mapping[str, np.ndarray], layers: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """{"conv1.kernel": array} from {path in the file: array}.

    Args:
      arrays: as the reader finds them.
      layers: what `places` gives, where paths have no names.

    Raises:
      ValueError: two arrays of one name.
    """
    paths = {path: path.removeprefix("model_weights/").split("/") for path in arrays}
    scopes = Counter(group for group, _ in {(p[0], "/".join(p[1:-1])) for p in paths.values()})
    sizes = Counter(path.rpartition("/")[0] for path in arrays)
    pairs = {}
    for path, parts in paths.items():
        if NUMBER.fullmatch(parts[-1]) and len(parts) > 2:
            pairs[path] = _numbered(parts, sizes[path.rpartition("/")[0]], layers or {})
        else:
            pairs[path] = _scoped(parts, scopes[parts[0]])
    if len(set(pairs.values())) < len(pairs):
        raise ValueError("it has two layers of one name")
    ranks = _ranks({layer for layer, _ in pairs.values()})
    return {
        f"{ranks.get(layer, layer)}.{variable}": arrays[path]
        for path, (layer, variable) in pairs.items()
    }


def _scoped(parts: list[str], scopes: int) -> tuple[str, str]:
    """(layer, variable) of a path with names; a group of several scopes is a model, not a layer."""
    layer = parts[0] if scopes == 1 else parts[-2]
    return layer, parts[-1].partition(":")[0]


def _numbered(parts: list[str], count: int, layers: Mapping[str, str]) -> tuple[str, str]:
    """(layer, variable) of a path that ends in CLASS[_K]/LAYER/NUMBER, one of `count`."""
    place, layer, number = parts[-3:]
    kind = AUTOMATIC.fullmatch(place)
    variables = VARIABLES[kind[1]] if kind else ()
    if "beta" in variables:
        variables = variables[-count:]
    known = int(number) < len(variables)
    layer = layers.get(place, place) if layer == "vars" else layer
    return layer, variables[int(number)] if known else number


def _ranks(layers: set[str]) -> dict[str, str]:
    """{"conv2d_7": "conv2d_0", ...} of the layers that Keras named."""
    found: dict[str, list[tuple[int, str]]] = {}
    for layer in layers:
        if match := AUTOMATIC.fullmatch(layer):
            found.setdefault(match[1], []).append((int(match[2] or 0), layer))
    return {
        layer: f"{kind}_{k}"
        for kind, numbers in found.items()
        for k, (_, layer) in enumerate(sorted(numbers))
    }
