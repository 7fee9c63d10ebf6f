"""A loaded face network as a pure function, and the folder it is stored in.

A converted network is a folder: `card.json` (what it is, where it came from, every shape) and
`params/` (an orbax checkpoint of {path: array}).
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from opom_jax.errors import InputError
from opom_jax.networks.registry import NETWORKS, Spec

PRECISIONS = ("float32", "bfloat16")
Params = Any  # nnx.State of a network: every leaf an array


class Recognizer(NamedTuple):
    """A network ready to use.

    Attributes:
      name: name of the folder it came from, or of the network.
      spec: what it is and how it wants its input.
      params: weights and batch statistics, a pytree of arrays.
      embed: pure and differentiable, (params, images f32[B,H,W,3] RGB 0..255) -> f32[B,D], not
        normalised.
      digest: SHA-256 of the weights, which names cached features.
    """

    name: str
    spec: Spec
    params: Params
    embed: Callable[[Params, jax.Array], jax.Array]
    digest: str


def abstract_params(network: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every array of a network of the registry, nothing computed."""
    _, state = _abstract(network)
    return {path: jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in _flat(state).items()}


def recognizer(
    network: str,
    arrays: Mapping[str, np.ndarray],
    *,
    name: str | None = None,
    precision: str = "float32",
) -> Recognizer:
    """Builds a recogniser from {path: array}.

    Args:
      network: a name of `registry.NETWORKS`.
      arrays: exactly the paths and shapes of `abstract_params(network)`.
      name: what to call it in tables; the network's name if not given.
      precision: "float32", or "bfloat16" for convolutions and products in bfloat16 (batch norm,
        activations, embedding stay float32).

    Raises:
      InputError: names of the registry, paths or shapes do not fit.
    """
    graphdef, state = _abstract(network)
    wanted = {path: tuple(v.shape) for path, v in _flat(state).items()}
    found = {path: tuple(np.shape(v)) for path, v in arrays.items()}
    if wanted != found:
        wrong = sorted(p for p in wanted.keys() | found.keys() if wanted.get(p) != found.get(p))
        raise InputError(
            f"The arrays do not fit network {network!r}: {len(wrong)} paths differ, first "
            f"{wrong[0]} (wanted {wanted.get(wrong[0])}, found {found.get(wrong[0])}); "
            "convert the weights again for this network."
        )
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}.")
    kernel_type = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    leaves = [
        (path, variable.replace(_cast(str(path[-1]), arrays[_join(path)], kernel_type)))
        for path, variable in nnx.to_flat_state(state)
    ]
    spec = NETWORKS[network]

    def embed(params: Params, images: jax.Array) -> jax.Array:
        embedding, _ = nnx.merge(graphdef, params)(spec.preprocess(images))
        return embedding.astype(jnp.float32)

    params = nnx.from_flat_state(leaves)
    return Recognizer(name or network, spec, params, embed, digest(arrays))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over sorted paths, shapes and bytes of the arrays."""
    sha = hashlib.sha256()
    for path in sorted(arrays):
        array = np.ascontiguousarray(arrays[path])
        sha.update(f"{path}{array.shape}{array.dtype.str};".encode())
        sha.update(array.data)
    return sha.hexdigest()


def save(
    folder: os.PathLike | str, network: str, arrays: Mapping[str, np.ndarray], source: dict
) -> None:
    """Writes `folder` whole or not at all.

    Args:
      folder: must not exist.
      network: a name of the registry.
      arrays: {path: array} as `recognizer` takes it.
      source: where it came from (file name, SHA-256, ...), stored in the card.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; remove it or choose another --out.")
    card = {
        "network": network,
        "source": source,
        "preprocessing": NETWORKS[network].card(),
        "weights_sha256": digest(arrays),
        "shapes": {path: list(np.shape(arrays[path])) for path in sorted(arrays)},
    }
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        checkpointer = ocp.StandardCheckpointer()
        checkpointer.save((partial / "params").absolute(), dict(arrays))
        checkpointer.wait_until_finished()
        card["params_sha256"] = _files_digest(partial / "params")
        (partial / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        os.rename(partial, folder)
    except Exception as error:  # a full disk is a ValueError of tensorstore
        raise InputError(
            f"{folder} cannot be written ({_first_line(error)}); mend that."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(folder: os.PathLike | str, precision: str = "float32") -> Recognizer:
    """Loads a converted network.

    Raises:
      InputError: no card, a card of an unknown network or other shapes, damaged weights.
    """
    folder = Path(folder)
    card = read_card(folder)
    wanted = {path: list(v.shape) for path, v in abstract_params(card["network"]).items()}
    if card["shapes"] != wanted:
        raise InputError(
            f"{folder / 'card.json'} lists other shapes than network {card['network']!r} has; "
            "convert the weights again."
        )
    try:
        found = _files_digest(folder / "params")
        if card["params_sha256"] != found:  # orbax would fill the screen with errors
            raise ValueError("not the files of its card")
        arrays = ocp.StandardCheckpointer().restore(
            (folder / "params").absolute(),
            {path: np.zeros(shape, np.float32) for path, shape in wanted.items()},
        )
    except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
        reason = _first_line(error)
        raise InputError(
            f"{folder / 'params'} cannot be read ({reason}); convert again."
        ) from error
    name = folder.resolve().name
    network = recognizer(card["network"], arrays, name=name, precision=precision)
    if network.digest != card["weights_sha256"]:
        raise InputError(f"{folder / 'params'} does not hold what its card says; convert again.")
    return network


def read_card(folder: Path) -> dict:
    """The card of a converted network, checked for its network and preprocessing."""
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text())
        network, preprocessing = card["network"], card["preprocessing"]
        kinds = {"shapes": dict, "weights_sha256": str, "params_sha256": str, "network": str}
        if not all(isinstance(card[key], kind) for key, kind in kinds.items()):
            raise TypeError("not the fields of a card")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no converted network (no card.json); make one with the convert verb."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise InputError(f"{path} is not a network's card; convert the weights again.") from error
    if network not in NETWORKS:
        raise InputError(f"{path} names the unknown network {network!r}; convert again.")
    if preprocessing != NETWORKS[network].card():
        raise InputError(
            f"{path} was made for another preprocessing of {network!r}; convert the weights again."
        )
    return card


def _abstract(network: str):
    if network not in NETWORKS:
        raise InputError(f"Unknown network {network!r}; choose from {', '.join(NETWORKS)}.")
    return _abstract_of(NETWORKS[network])


@functools.cache
def _abstract_of(spec: Spec):
    return nnx.split(nnx.eval_shape(lambda: spec.build(nnx.Rngs(0))))


def _files_digest(folder: Path) -> str:
    """SHA-256 (hex) over the names, sizes and bytes of all files below a folder."""
    sha = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(folder).as_posix()}:{len(content)};".encode())
        sha.update(content)
    return sha.hexdigest()


def _first_line(error: Exception) -> str:
    reason = str(getattr(error, "strerror", None) or error).strip()
    return reason.splitlines()[0][:200] if reason else type(error).__name__


def _join(path: tuple) -> str:
    return "/".join(map(str, path))


def _flat(state) -> dict[str, Any]:
    return {_join(path): variable for path, variable in nnx.to_flat_state(state)}


def _cast(leaf: str, array, kernel_type) -> jax.Array:
    return jnp.asarray(array, kernel_type if leaf == "kernel" else jnp.float32)
