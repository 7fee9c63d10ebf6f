"""A loaded face network as a pure function, and the folder it is stored in.

A network's folder holds `card.json` (what it is, where it came from, every shape) and either
`params/` (an orbax checkpoint of {path: array}) or `params.npz` (half the size, see `half.py`). The
networks that come with the package are `zoo:NAME`, those that `models fetch` has brought
`models:NAME`.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from opom_jax import files
from opom_jax.errors import InputError, first_line
from opom_jax.networks import half as half_size
from opom_jax.networks.graph import Build, Graph
from opom_jax.networks.layers import Change, abstract, on_outputs, prepared, with_prepared
from opom_jax.networks.registry import NETWORKS, Spec

PRECISIONS = ("float32", "bfloat16")
GRAPH = "graph"  # the network's name in a card that holds a graph of its own
NORM_FLOOR = 1e-12  # as torch's normalize
ZOO = Path(__file__).resolve().parents[1] / "zoo"
Params = Any  # nnx.State of a network: every leaf an array
Forward = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


class Recognizer(NamedTuple):
    """A network ready to use.

    Attributes:
      name: name of the folder it came from, or of the network.
      spec: what it is and how it wants its input.
      params: weights and batch statistics, a pytree of arrays.
      embed: pure and differentiable, (params, images f32[B,H,W,3] RGB 0..255) -> f32[B,D], not
        normalised. A third argument changes what convolutions put out (`layers.on_outputs`).
      digest: SHA-256 of the weights, which names cached features.
      prepare: params -> what `embed` also takes in their place, see `ready`; None: there is nothing
        to prepare.
    """

    name: str
    spec: Spec
    params: Params
    embed: Callable[..., jax.Array]
    digest: str
    prepare: "Callable[[Params], Ready] | None" = None

    def ready(self) -> "Params | Ready":
        """In place of `params`, for many passes forward and backward."""
        return self.prepare(self.params) if self.prepare else self.params


class Ready(NamedTuple):
    """Weights, and what layers work out from weights alone: it is done once, not in every pass.

    Attributes:
      params: as they are.
      known: turned kernels, folded batch norms, see `layers.prepared`.
    """

    params: Params
    known: dict[str, Any]


class Team(NamedTuple):
    """Several recognisers that are attacked together.

    Attributes:
      members: one or more; their embeddings may differ in length.
    """

    members: tuple[Recognizer, ...]

    @property
    def name(self) -> str:
        """All names."""
        return "+".join(member.name for member in self.members)

    @property
    def digest(self) -> str:
        """All digests."""
        return "+".join(member.digest for member in self.members)

    @property
    def params(self) -> tuple[Params, ...]:
        """Of every member."""
        return tuple(member.params for member in self.members)

    def ready(self) -> tuple[Params | Ready, ...]:
        """Of every member."""
        return tuple(member.ready() for member in self.members)

    @property
    def embed(self) -> tuple[Callable[..., jax.Array], ...]:
        """Of every member."""
        return tuple(member.embed for member in self.members)


def abstract_params(network: str | Spec) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every array of a network, nothing computed."""
    _, state = _abstract(network)
    return {path: jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in flat(state).items()}


def graph_spec(graph: Graph, **preprocessing) -> Spec:
    """A network that is no family but a graph; `preprocessing` are fields of `Spec`.

    Raises:
      InputError: a node that cannot be run.
    """
    height, width = graph.size
    if height != width and "crop" not in preprocessing:
        raise InputError(f"The graph takes images of {height} x {width}; name the crop.")
    size = preprocessing.pop("size", max(height, width))
    spec = Spec(Build(graph), 0, "", size, **preprocessing)
    try:
        return dataclasses.replace(spec, embedding=_length(spec))
    except Exception as error:  # JAX and NumPy raise many kinds for what does not fit
        raise InputError(
            f"The graph cannot be run ({first_line(error)}); export the network again."
        ) from error


def recognizer(
    network: str | Spec,
    arrays: Mapping[str, np.ndarray],
    *,
    name: str | None = None,
    precision: str = "float32",
) -> Recognizer:
    """Builds a recogniser from {path: array}.

    Args:
      network: a name of `registry.NETWORKS`, or a spec that `graph_spec` made.
      arrays: exactly the paths and shapes of `abstract_params(network)`.
      name: what to call it in tables; the network's name if not given.
      precision: "float32", or "bfloat16" for convolutions and products in bfloat16 (batch norm,
        activations, embedding stay float32).

    Raises:
      InputError: names of the registry, paths or shapes do not fit.
    """
    _, state = _abstract(network)
    wanted = {path: tuple(v.shape) for path, v in flat(state).items()}
    found = {path: tuple(np.shape(v)) for path, v in arrays.items()}
    if wanted != found:
        wrong = sorted(p for p in wanted.keys() | found.keys() if wanted.get(p) != found.get(p))
        raise InputError(
            f"The arrays do not fit network {_name(network)!r}: {len(wrong)} paths differ, first "
            f"{wrong[0]} (wanted {wanted.get(wrong[0])}, found {found.get(wrong[0])}); "
            "convert the weights again for this network."
        )
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}.")
    leaves = [
        (path, variable.replace(jnp.asarray(arrays[_join(path)], jnp.float32)))
        for path, variable in nnx.to_flat_state(state)
    ]
    spec = _spec(network)
    params = cast(nnx.from_flat_state(leaves), precision)
    name, embed = name or _name(network), _embed_of(spec)
    return Recognizer(name, spec, params, embed, digest(arrays), _prepare_of(spec))


@functools.cache
def forward_of(spec: Spec) -> Forward:
    """A network of this kind as (params, images f32[B,H,W,3] RGB 0..255) -> (embedding f32[B,D],
    taps {name: [B,h,w,c]}), pure and differentiable; the taps are its feature maps, in order. A
    third argument changes what convolutions put out (`layers.on_outputs`).

    One function for all networks of a kind, so that they share what is compiled from it.
    """
    graphdef, _ = _abstract_of(spec)

    def forward(params: Params | Ready, images: jax.Array, change: Change | None = None):
        params, known = params if isinstance(params, Ready) else (params, None)
        network = nnx.merge(graphdef, params)
        if known is not None:
            with_prepared(network, known)
        if change is not None:
            on_outputs(network, change)
        embedding, taps = network(spec.preprocess(images))
        return embedding.astype(jnp.float32), taps

    return forward


@functools.cache
def _prepare_of(spec: Spec) -> Callable[[Params], Ready]:
    graphdef, _ = _abstract_of(spec)
    known = jax.jit(lambda params: prepared(nnx.merge(graphdef, params)))
    return lambda params: Ready(params, known(params))


@functools.cache
def _embed_of(spec: Spec) -> Callable[..., jax.Array]:
    forward = forward_of(spec)
    return lambda params, images, change=None: forward(params, images, change)[0]


def normalize(features: jax.Array) -> jax.Array:
    """Features f32[...,D] at unit length, zero where they are zero (as torch's `normalize`)."""
    norm = jnp.sqrt(jnp.sum(features**2, -1, keepdims=True))
    return features / jnp.maximum(norm, NORM_FLOOR)


def cast(params: Params, precision: str) -> Params:
    """The weights as a precision computes with them: "bfloat16" makes kernels bfloat16, whatever
    else (batch norm, slopes, biases) stays."""
    if precision != "bfloat16":
        return params
    leaves = [
        (path, v.replace(v[...].astype(jnp.bfloat16)) if path[-1] == "kernel" else v)
        for path, v in nnx.to_flat_state(params)
    ]
    return nnx.from_flat_state(leaves)


def flat(state: Params) -> dict[str, Any]:
    """{path: variable} of a network's state, the paths as in a stored folder."""
    return {_join(path): variable for path, variable in nnx.to_flat_state(state)}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over sorted paths, shapes and bytes of the arrays."""
    sha = hashlib.sha256()
    for path in sorted(arrays):
        array = np.ascontiguousarray(arrays[path])
        sha.update(f"{path}{array.shape}{array.dtype.str};".encode())
        sha.update(array.data)
    return sha.hexdigest()


def save(
    folder: os.PathLike | str,
    network: str | Spec,
    arrays: Mapping[str, np.ndarray],
    source: dict,
    *,
    half: bool = False,
) -> None:
    """Writes `folder` whole or not at all.

    Args:
      folder: must not exist.
      network, arrays: as `recognizer` takes them.
      source: where it came from (file name, SHA-256, ...), stored in the card.
      half: kernels in float16 in one `params.npz`, instead of float32 in `params/`.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; remove it or choose another --out.")
    if half:
        arrays = half_size.rounded(arrays)
    card = {
        "network": _name(network),
        "source": source,
        "preprocessing": _spec(network).card(),
        "weights_sha256": digest(arrays),
        "shapes": {path: list(np.shape(arrays[path])) for path in sorted(arrays)},
    }
    if isinstance(network, Spec):
        card["graph"] = network.build.graph.to_json()  # pyright: ignore
    try:
        with files.making(folder) as partial:
            if half:
                half_size.write(partial / half_size.FILE, arrays)
            else:
                checkpointer = ocp.StandardCheckpointer()
                checkpointer.save((partial / "params").absolute(), dict(arrays))
                checkpointer.wait_until_finished()
            card["params_sha256"] = files.content_sha256(_weights(partial))
            (partial / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    except Exception as error:  # a full disk is a ValueError of tensorstore
        raise InputError(f"{folder} cannot be written ({first_line(error)}); mend that.") from error


def load(folder: os.PathLike | str, precision: str = "float32") -> Recognizer:
    """Loads a converted or trained network.

    Args:
      folder: its folder, or "zoo:NAME" for one that comes with the package, "models:NAME" for one
        that was fetched.
      precision: as in `recognizer`.

    Raises:
      InputError: no card, a card of an unknown network or other shapes, damaged weights, values
        that are not finite, a name that is not in the zoo or was not fetched.
    """
    folder = resolved(folder)
    card = read_card(folder)
    kind = _of_card(card, folder)
    wanted = {path: list(v.shape) for path, v in abstract_params(kind).items()}
    if card["shapes"] != wanted:
        raise InputError(
            f"{folder / 'card.json'} lists other shapes than network {card['network']!r} has; "
            "convert the weights again."
        )
    weights = _weights(folder)
    try:
        if card["params_sha256"] != files.content_sha256(weights):  # orbax would fill the screen
            raise ValueError("not the files of its card")
        if weights.name == half_size.FILE:
            arrays = half_size.read(weights, wanted)
        else:
            arrays = ocp.StandardCheckpointer().restore(
                weights.absolute(),
                {path: np.zeros(shape, np.float32) for path, shape in wanted.items()},
            )
    except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
        raise InputError(
            f"{weights} cannot be read ({first_line(error)}); convert again."
        ) from error
    name = folder.resolve().name
    network = recognizer(kind, arrays, name=name, precision=precision)
    if network.digest != card["weights_sha256"]:
        raise InputError(f"{weights} does not hold what its card says; convert again.")
    if broken := not_finite(arrays):
        raise InputError(
            f"{folder} has values that are not finite in {broken}; convert or train it again."
        )
    return network


def not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The first path, sorted, whose array holds NaN or an infinity; None if there is none."""
    return next((path for path in sorted(arrays) if not np.isfinite(arrays[path]).all()), None)


def read_card(folder: Path) -> dict:
    """The card of a converted network, checked for its network and preprocessing."""
    path = folder / "card.json"
    try:
        if path.is_fifo():
            raise TypeError("would be waited for")
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
    if network == GRAPH:
        _of_card(card, folder)
        return card
    if network not in NETWORKS:
        raise InputError(f"{path} names the unknown network {network!r}; convert again.")
    if preprocessing != NETWORKS[network].card():
        raise InputError(
            f"{path} was made for another preprocessing of {network!r}; convert the weights again."
        )
    return card


def on_shelf(shelf: Path) -> list[str]:
    """Names of the networks in a folder of them, sorted; hidden ones are not finished."""
    found = (path.parent.name for path in shelf.glob("*/card.json"))
    return sorted(name for name in found if not name.startswith("."))


def fetched() -> Path:
    """The folder of the networks that `models fetch` has brought."""
    return files.cache_folder() / "models"


def resolved(folder: os.PathLike | str) -> Path:
    """The folder that "zoo:NAME" or "models:NAME" stands for, any other as it is; InputError if
    there is no such name."""
    prefix, colon, name = str(folder).partition(":")
    if not colon or prefix not in ("zoo", "models"):
        return Path(folder)
    shelf, where = ZOO, "in the zoo of the package"
    if prefix == "models":
        shelf, where = fetched(), "among the networks that `models fetch` has brought"
    if name not in on_shelf(shelf):
        known = ", ".join(f"{prefix}:{known}" for known in on_shelf(shelf))
        mend = f"choose from {known}" if known else "none is there yet, see `models list`"
        raise InputError(f"{str(folder)!r} is not {where}; {mend}.")
    return shelf / name


def _weights(folder: Path) -> Path:
    file = folder / half_size.FILE
    return file if file.exists() else folder / "params"


def _of_card(card: dict, folder: Path) -> str | Spec:
    """What a card describes: a name of the registry, or the spec of its graph."""
    if card["network"] != GRAPH:
        return card["network"]
    try:
        build = Build(Graph.from_json(card["graph"]))
        spec = Spec.of_card(build, card["preprocessing"])
        if spec.embedding != _length(spec):
            raise ValueError("not the embedding of its graph")
        return spec
    except Exception as error:  # JAX and NumPy raise many kinds for what does not fit
        raise InputError(
            f"{folder / 'card.json'} has no graph that can be run ({first_line(error)}); "
            "convert again."
        ) from error


def _name(network: str | Spec) -> str:
    return network if isinstance(network, str) else GRAPH


def _spec(network: str | Spec) -> Spec:
    if isinstance(network, Spec):
        return network
    if network not in NETWORKS:
        raise InputError(f"Unknown network {network!r}; choose from {', '.join(NETWORKS)}.")
    return NETWORKS[network]


def _abstract(network: str | Spec):
    return _abstract_of(_spec(network))


@functools.cache
def _abstract_of(spec: Spec):
    return nnx.split(abstract(spec.build))


@functools.cache
def _length(spec: Spec) -> int:
    """D of the embedding that a network makes, nothing computed; many errors if it cannot run."""
    _, state = _abstract_of(spec)
    images = jax.ShapeDtypeStruct((1, spec.size, spec.size, 3), jnp.float32)
    made = jax.eval_shape(_embed_of(spec), state, images)
    if made.size == 0:
        raise ValueError("its output is empty")
    return made.shape[1]


def _join(path: tuple) -> str:
    return "/".join(map(str, path))
