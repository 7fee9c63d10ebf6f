"""python benchmarks/replay.py GOLDEN.npz ...

One step from every stored state of runs of the published code (files `opom_fim_<loss>_*.npz`,
`opom_dfanet_<loss>_*.npz` and `opom_small.npz`), compared with what it did there. Prints per run the
worst share of pixels whose sign differs, the worst relative difference of the loss, and the worst
of the hull's coefficients' residual; exits 1 if a sign share is above 1e-3 or a loss above 1e-5.

The loss is taken at the coefficients that the file stores (`qp_x`), where it has them: the published
solver leaves errors up to 1.9e-5 in the ClassCenter ones, which alone move the loss by up to 2.6e-5.
Signs come from a step with our own coefficients, and `residual` says how much further from the hull
the file's coefficients are than ours (relative; negative would mean that ours are worse).

Images, noise, and the recipe of the weights are read from the folder of each file.
"""

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import recipe  # noqa: E402
from converters.convert import translate  # noqa: E402
from opom_jax.masks import generate  # noqa: E402
from opom_jax.masks.objectives import NEAREST, Scene, normalize  # noqa: E402
from opom_jax.masks.update import State, init, update  # noqa: E402
from opom_jax.networks.recognizer import Recognizer, recognizer  # noqa: E402

METHODS = {0: "fi_uap", 2: "fi_uap_plus", 7: "class_center", 8: "affine_hull", 9: "convex_hull"}
SIGN_LIMIT, LOSS_LIMIT = 1e-3, 1e-5


class Run(NamedTuple):
    """One stored run of one person: arrays as in the file, over its steps."""

    name: str
    network: str
    settings: generate.Settings
    images: np.ndarray  # f32[N,H,W,C]
    noise: np.ndarray  # f32[N,H,W,C]
    masks: np.ndarray  # f32[T,3,H,W] after each step
    gradients: np.ndarray  # f32[T,3,H,W] mean over photos, or f32[T,N,3,H,W] with momentum
    losses: np.ndarray  # f64[T]
    coefficients: np.ndarray | None  # f64[T,N,N]


def runs(path: Path) -> Iterator[Run]:
    """The runs of one file."""
    stored = np.load(path)
    photos = np.load(path.parent / "images.npz")["images112"].astype(np.float32)
    if path.name == "opom_small.npz":
        noise = _nhwc(stored["noise"])
        for loss in METHODS:  # its dfa9 run drew dropout masks that are not stored
            names = [f"fim{loss}_{name}" for name in ("eta", "grad_mean", "loss", "qp_x")]
            arrays = [stored[name] if name in stored else None for name in names]
            settings = _settings(loss, 3, 1, False)
            yield Run(f"small fim{loss}", "IR_small_1111", settings, photos[1, :4], noise, *arrays)
        return
    match = re.fullmatch(r"opom_(fim|dfanet)_(\d)_\w+\.npz", path.name)
    if not match:
        raise SystemExit(f"{path}: not a file of the form opom_fim_*, opom_dfanet_*, opom_small.")
    kind, loss = match[1], int(match[2])
    noise = _nhwc(np.load(path.parent / "opom_noise.npz")["noise"])
    if kind == "dfanet":
        names = ("eta", "grad", "loss", "qp_x")
        arrays = [stored[name] if name in stored else None for name in names]
        settings = _settings(loss, len(stored["eta"]), 2, True)
        yield Run(f"{path.stem} id 0", "IR_50", settings, photos[0], noise, *arrays)
        return
    for person in range(len(stored["eta"])):
        names = ("eta", "grad_mean", "loss", "qp_x")
        arrays = [stored[name][person] if name in stored else None for name in names]
        settings = _settings(loss, len(stored["eta"][0]), 5, False)
        name = f"{path.stem} id {person}"
        yield Run(name, "IR_50", settings, photos[person], noise, *arrays)


def replay(run: Run, network: Recognizer) -> tuple[float, float, float]:
    """(worst share of differing signs, worst relative loss, worst relative residual) of a run."""
    step, at_coefficients = _compiled(run.settings, network.embed, run.network)
    clean = normalize(jax.jit(network.embed)(network.params, run.images))
    valid = jnp.ones(len(run.images))
    state = init(generate.rule(run.settings), run.images, run.noise)
    theirs = np.zeros_like(run.images)
    worst = np.zeros(3)
    for t in range(run.settings.steps):
        metrics, gradient, residual = step(network.params, state.masked, clean, valid, t)
        loss, stored = float(metrics.objective), run.losses[t]
        if run.coefficients is not None:
            x = jnp.asarray(run.coefficients[t], jnp.float32)
            loss, at_theirs = map(
                np.asarray, at_coefficients(network.params, state.masked, clean, x)
            )
            worst[2] = max(worst[2], float(np.max((residual - at_theirs) / at_theirs)))
        if run.settings.momentum:
            own = update(generate.rule(run.settings), state, gradient, run.images, valid).momentum
            stored_gradient = _nhwc(run.gradients[t])
            size = np.abs(stored_gradient).mean((0, 1, 3), keepdims=True)
            theirs = theirs + stored_gradient / np.where(size > 0, size, 1)
            differ = np.sign(own) != np.sign(theirs)
        else:
            differ = np.sign(gradient.mean(0)) != np.sign(run.gradients[t].transpose(1, 2, 0))
        worst[:2] = np.maximum(worst[:2], [np.mean(differ), abs(loss - stored) / abs(stored)])
        mask = run.masks[t].transpose(1, 2, 0)
        momentum = jnp.asarray(theirs, jnp.float32) if run.settings.momentum else None
        state = State(mask, np.clip(run.images + mask, 0, 255), momentum)
    return tuple(worst)


def end_to_end(run: Run, network: Recognizer) -> float:
    """Relative difference of the last step's loss when the whole run is replayed freely."""
    step, _ = _compiled(run.settings, network.embed, run.network)
    clean = normalize(jax.jit(network.embed)(network.params, run.images))
    valid = jnp.ones(len(run.images))
    state = init(generate.rule(run.settings), run.images, run.noise)
    loss = 0.0
    for t in range(run.settings.steps):
        metrics, gradient, _ = step(network.params, state.masked, clean, valid, t)
        loss = float(metrics.objective)
        state = update(generate.rule(run.settings), state, gradient, run.images, valid)
    return abs(loss - run.losses[-1]) / abs(run.losses[-1])


def _settings(loss: int, steps: int, initial_steps: int, momentum: bool) -> generate.Settings:
    return generate.Settings(
        method=METHODS[loss],
        steps=steps,
        initial_steps=initial_steps,
        momentum=float(momentum),
    )


@cache
def _compiled(settings: generate.Settings, embed: Callable, network: str):
    """The jitted step and the jitted objective at given coefficients, once per network."""
    del network

    def residuals(features, nearest):
        return jnp.linalg.norm(features - nearest, axis=-1)

    @jax.jit
    def step(params, masked, clean, valid, t):
        metrics, gradient = generate.loss_and_gradient(
            embed, settings, params, masked, clean, valid, t
        )
        features = normalize(embed(params, masked))
        residual = jnp.zeros(len(masked))
        if settings.method in NEAREST:
            warm = t < settings.initial_steps
            scene = Scene(clean, features, valid, warm, jnp.float32(0), jnp.float32(1))
            residual = residuals(features, NEAREST[settings.method](scene))
        return metrics, gradient, residual

    @jax.jit
    def at_coefficients(params, masked, clean, x):
        features = normalize(embed(params, masked))
        return jnp.mean((features - x @ clean) ** 2), residuals(features, x @ clean)

    return step, at_coefficients


def load(name: str, folder: Path) -> Recognizer:
    """The recipe's network of this name, from the goldens' folder."""
    entry = json.loads((folder / "state_dict_keys_opom.json").read_text())[name]
    registered = {"IR_50": "ir_50", "IR_small_1111": "ir_tiny"}[name]
    arrays = translate(Path(name), {"": recipe.weights(entry)}, registered)
    return recognizer(registered, arrays)


def _nhwc(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -3, -1)


def main(paths: list[Path]) -> int:
    """Replays every file; returns the exit code."""
    jax.config.update("jax_default_matmul_precision", "highest")
    networks: dict[str, Recognizer] = {}
    failed = False
    print(f"{'run':32} {'signs':>9} {'loss':>9} {'residual':>9} {'end':>9}")
    for path in paths:
        for run in runs(path):
            if run.network not in networks:
                networks[run.network] = load(run.network, path.parent)
            signs, loss, residual = replay(run, networks[run.network])
            end = end_to_end(run, networks[run.network])
            failed |= signs > SIGN_LIMIT or loss > LOSS_LIMIT
            print(f"{run.name:32} {signs:9.1e} {loss:9.1e} {residual:9.1e} {end:9.1e}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or sys.exit(__doc__)))
