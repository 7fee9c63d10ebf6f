"""python benchmarks/replay.py GOLDEN.npz ...

One step from every stored state of runs of the published code (files `opom_fim_<loss>_*.npz`,
`opom_dfanet_<loss>_*.npz`, `opom_small.npz`), compared with what it did there. Prints for each run

* signs: the worst share of pixels whose sign differs, with our own hull coefficients;
* loss: the worst relative difference; in ClassCenter's steps it is taken at the coefficients that
  the file stores, because the published solver leaves them up to 1.9e-5 away from 1/N, which alone
  moves the loss by up to 2.6e-5;
* residual: how much further from the hull our coefficients are than the file's, relative, worst
  photo; the initial ClassCenter steps left out;
* end: relative difference of the last loss when the run is repeated freely from its start.

Exits 1 if signs exceed 1e-3, a loss 1e-5, a residual 1e-5 or an end 1e-3.

Images, noise and the recipe of the weights are read from the folder of each file, or where they are
not there from the goldens beside the checkout.
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
from opom_jax.masks import generate, transfer  # noqa: E402
from opom_jax.masks.objectives import NEAREST, Scene  # noqa: E402
from opom_jax.masks.update import State, init, update  # noqa: E402
from opom_jax.networks.recognizer import Recognizer, normalize, recognizer  # noqa: E402

METHODS = {0: "fi_uap", 2: "fi_uap_plus", 7: "class_center", 8: "affine_hull", 9: "convex_hull"}
GOLDENS = Path(__file__).resolve().parents[2] / "shared" / "goldens"
LIMITS = {"signs": 1e-3, "loss": 1e-5, "residual": 1e-5, "end": 1e-3}


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
    photos = np.load(_beside(path, "images.npz"))["images112"].astype(np.float32)
    if path.name == "opom_small.npz":
        noise = _nhwc(stored["noise"])
        for loss in METHODS:  # its dfa9 run drew dropout masks that are not stored
            names = [f"fim{loss}_{name}" for name in ("eta", "grad_mean", "loss", "qp_x")]
            arrays = [stored.get(name) for name in names]
            settings = _settings(loss, 3, 1, False)
            yield Run(f"small fim{loss}", "IR_small_1111", settings, photos[1, :4], noise, *arrays)
        return
    match = re.search(r"(fim|dfanet)_(\d)", path.name)
    if not match or int(match[2]) not in METHODS or "eta" not in stored:
        raise SystemExit(f"{path}: not a file of the form opom_fim_*, opom_dfanet_*, opom_small.")
    kind, loss = match[1], int(match[2])
    noise = _nhwc(np.load(_beside(path, "opom_noise.npz"))["noise"])
    if kind == "dfanet":
        names = ("eta", "grad", "loss", "qp_x")
        arrays = [stored.get(name) for name in names]
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
    rule = generate.rule(run.settings)
    params, step, clean, valid = _prepare(run, network)
    state = init(rule, run.images, run.noise)
    theirs = np.zeros_like(run.images)
    worst = np.zeros(3)
    for t, stored in enumerate(run.losses):
        centre = run.settings.method == "class_center" or t < _warm(run.settings)
        known = run.coefficients is not None
        x = run.coefficients[t].astype(np.float32) if known else np.eye(len(valid), dtype="f4")
        seen = step(params, state.masked, clean, valid, x, t)
        loss = float(seen.objective_there if known and centre else seen.objective)
        if known and not centre:
            excess = (seen.residual - seen.residual_there) / seen.residual_there
            worst[2] = max(worst[2], float(excess.max()))
        if rule.decay:
            gradient = _nhwc(run.gradients[t])
            size = np.abs(gradient).mean((0, 1, 3), keepdims=True)
            theirs = theirs + gradient / np.where(size > 0, size, 1)
            own = update(rule, state, seen.gradient, run.images, valid).momentum
        else:
            own, theirs = seen.gradient.mean(0), _nhwc(run.gradients[t])
        differ = np.mean(np.sign(own) != np.sign(theirs))
        worst[:2] = np.maximum(worst[:2], [differ, abs(loss - stored) / abs(stored)])
        mask = _nhwc(run.masks[t])
        momentum = jnp.asarray(theirs, jnp.float32) if rule.decay else None
        state = State(mask, np.clip(run.images + mask, 0, 255), momentum)
    return tuple(worst)


def end_to_end(run: Run, network: Recognizer) -> float:
    """Relative difference of the last step's loss when the whole run is repeated freely."""
    rule = generate.rule(run.settings)
    params, step, clean, valid = _prepare(run, network)
    state = init(rule, run.images, run.noise)
    unused = np.eye(len(valid), dtype=np.float32)
    loss = 0.0
    for t in range(run.settings.steps):
        seen = step(params, state.masked, clean, valid, unused, t)
        loss = float(seen.objective)
        state = update(rule, state, seen.gradient, run.images, valid)
    return abs(loss - run.losses[-1]) / abs(run.losses[-1])


def _settings(loss: int, steps: int, initial_steps: int, momentum: bool) -> generate.Settings:
    return generate.Settings(
        method=METHODS[loss],
        steps=steps,
        initial_steps=initial_steps,
        momentum=float(momentum),
    )


def _warm(settings: generate.Settings) -> int:
    return settings.initial_steps if settings.method == "convex_hull" else 0


class Seen(NamedTuple):
    """One step: ours, and at the coefficients of the file (`_there`)."""

    gradient: jax.Array  # f32[N,H,W,C]
    objective: jax.Array  # f32[]
    residual: jax.Array  # f32[N]
    objective_there: jax.Array
    residual_there: jax.Array


def _prepare(run: Run, network: Recognizer):
    step, embed = _compiled(run.settings, network.embed)
    params = network.ready()  # as masks are made
    clean = normalize(embed(params, run.images))
    return params, step, clean, jnp.ones(len(run.images))


@cache
def _compiled(settings: generate.Settings, embed: Callable):
    if settings.momentum:  # the published DFANet, whose stored runs dropped nothing
        embed = transfer.dfanet(embed, 0.0, settings.form, jax.random.key(0))

    @jax.jit
    def step(params, masked, clean, valid, x, t) -> Seen:
        metrics, gradient = generate.loss_and_gradient(
            embed, settings, params, masked, clean, valid, t
        )
        features = normalize(embed(params, masked))  # XLA merges this with the pass above
        nearest = features
        if settings.method in NEAREST:
            warm = t < settings.initial_steps
            scene = Scene(clean, features, valid, warm, jnp.float32(0), jnp.float32(1))
            nearest = NEAREST[settings.method](scene)
        ours, there = features - nearest, features - x @ clean
        return Seen(
            gradient,
            metrics.objective,
            jnp.linalg.norm(ours, axis=-1),
            jnp.mean(there**2),
            jnp.linalg.norm(there, axis=-1),
        )

    return step, jax.jit(embed)


def load(name: str, path: Path) -> Recognizer:
    """The recipe's network of this name, for a golden file (or the folder of one)."""
    entry = json.loads(_beside(path, "state_dict_keys_opom.json").read_text())[name]
    registered = {"IR_50": "ir_50", "IR_small_1111": "ir_tiny"}[name]
    arrays = translate(Path(name), {"": recipe.weights(entry)}, registered)
    return recognizer(registered, arrays)


def _beside(path: Path, name: str) -> Path:
    folder = path if path.is_dir() else path.parent
    return folder / name if (folder / name).exists() else GOLDENS / name


def _nhwc(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -3, -1)


def main(paths: list[Path]) -> int:
    """Replays every file; returns the exit code."""
    jax.config.update("jax_default_matmul_precision", "highest")
    networks: dict[str, Recognizer] = {}
    failed = False
    print(f"{'run':32} " + " ".join(f"{name:>9}" for name in LIMITS))
    for path in paths:
        for run in runs(path):
            if run.network not in networks:
                networks[run.network] = load(run.network, path)
            network = networks[run.network]
            numbers = (*replay(run, network), end_to_end(run, network))
            failed |= not all(n <= limit for n, limit in zip(numbers, LIMITS.values(), strict=True))
            print(f"{run.name:32} " + " ".join(f"{n:9.1e}" for n in numbers), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]] or sys.exit(__doc__)))
