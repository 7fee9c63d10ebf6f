"""python benchmarks/generate.py [--network=xiaoccer --people=8 --rounds=3 ...]

Seconds per person of ConvexHull masks, from photos in memory to masks in memory: opom_jax, the
strongest torch (`strongest_torch.py`), the published loop as released (cvxpy; weight gradients that
nothing uses), and the same with its weights frozen. They take turns with the same weights, photos
and start noise. Imports, reading and compiling are left out; compiling is reported beside. The
published loop takes one person at a time, the strongest torch a batch, so they may run on fewer
people. Exits 1 if the final objectives of a person differ by more than 1 %, or their means by more
than 0.5 %.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

try:
    import cvxpy  # noqa: E402, F401
    import torch  # noqa: E402
except ImportError as error:
    sys.exit(f"The published loop needs {error.name}: pip install -e '.[benchmark]'.")

from benchmarks import published_loop, recipe, strongest_torch, timing  # noqa: E402
from converters.convert import translate  # noqa: E402
from converters.formats import torch_file  # noqa: E402
from opom_jax.cli.config import use_precision  # noqa: E402
from opom_jax.data import images, people  # noqa: E402
from opom_jax.masks import generate as masks  # noqa: E402
from opom_jax.masks.batches import Batch  # noqa: E402
from opom_jax.networks.recognizer import Recognizer, recognizer  # noqa: E402
from opom_jax.networks.registry import NETWORKS, Spec  # noqa: E402
from tests import torch_twins  # noqa: E402

SHARED = ROOT.parent / "shared"
REAL = Path(os.environ.get("OPOM_REAL_DATA") or SHARED / "real")
IR_50 = "ir_50"
TRAINED = {  # name -> (published weights, torch twin)
    "xiaoccer": ("068.ckpt", torch_twins.mobilefacenet_xiaoccer),
    "bubbliiiing": ("arcface_mobilefacenet.pth", torch_twins.MobileFaceNetBubbliiiing),
    "foamliu": ("mobile_face.pth", torch_twins.MobileFaceNetFoamliu),
}
PREFIX = "arcface."  # of names in one of the files, which its twin leaves out
RECIPES = SHARED / "goldens" / "state_dict_keys_opom.json"
CONVEX_HULL = 9  # the published loss type
SIZE = 112  # side of a photo, pixels
LIMIT, LIMIT_OF_MEAN = 0.01, 0.005  # relative differences of the final objectives
OURS, STRONGEST = "opom_jax", "strongest torch"
RELEASED, FROZEN = "published loop, as released", "published loop, weights frozen"

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "xiaoccer", [*TRAINED, IR_50], "Surrogate.")
flags.DEFINE_integer("people", 8, "People for opom_jax.", lower_bound=1)
flags.DEFINE_integer("peer_people", 0, "For the peers; 0: 8, or 1 for ir_50.", lower_bound=0)
flags.DEFINE_integer("people_per_batch", 4, "Together at most; divides people.", lower_bound=1)
flags.DEFINE_integer("photos", 10, "Photos of a person.", lower_bound=1)
flags.DEFINE_integer("steps", 16, "Steps.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
flags.DEFINE_integer("torch_threads", timing.cores(), "Of the peer.", lower_bound=1)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Of opom_jax.")
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def load_photos(count: int, photos: int) -> tuple[np.ndarray, str]:
    """u8[P,N,112,112,3] RGB and their kind: real faces, or smooth noise if those do not suffice."""
    folder = REAL / "faces_112" / "lfw"
    found = people.from_folder(folder, photos, count) if folder.is_dir() else []
    if len(found) == count and all(len(person.train) == photos for person in found):
        read = [[images.read_image(path, SIZE) for path in person.train] for person in found]
        return np.array(read), "real faces"
    coarse = np.random.default_rng(0).uniform(0, 255, (count, photos, 7, 7, 3))
    smooth = jax.image.resize(coarse, (count, photos, SIZE, SIZE, 3), "cubic")
    return np.asarray(smooth.clip(0, 255), np.uint8), "random smooth images"


def load_networks(name: str, precision: str) -> tuple[Recognizer, torch.nn.Module, str]:
    """Ours and the peer's with the same weights, and what weights those are."""
    torch.manual_seed(0)
    own = name if name == IR_50 else f"mobilefacenet_{name}"
    file, make = TRAINED.get(name, ("", torch_twins.ir_50))
    twin, checkpoint = make(), REAL / "weights" / own / file
    if name == IR_50 and RECIPES.is_file():
        state, source = recipe.weights(json.loads(RECIPES.read_text())["IR_50"]), "recipe"
    elif name != IR_50 and checkpoint.is_file():
        (state,), source = torch_file.read(checkpoint).values(), "trained"
    else:
        state, source = {k: v.numpy() for k, v in twin.state_dict().items()}, "random"
    arrays = translate(checkpoint, {"": state}, own)
    twin.load_state_dict({k.removeprefix(PREFIX): torch.tensor(v) for k, v in state.items()})
    if name != IR_50:  # which prepares its input itself
        twin.register_forward_pre_hook(_prepared(NETWORKS[own]))
    cuda = jax.default_backend() == "gpu" and torch.cuda.is_available()
    twin.to("cuda" if cuda else "cpu")
    return recognizer(own, arrays, precision=precision), twin, source


def _prepared(spec: Spec) -> Callable:
    """What a twin's forward pass sees of RGB f32[B,3,112,112] in 0..255."""
    top, bottom, left, right = spec.crop or (0, spec.size, 0, spec.size)
    mean, scale = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.scale))

    def prepare(_, given: tuple[torch.Tensor]) -> torch.Tensor:
        pixels = given[0][..., top:bottom, left:right]
        return (pixels - mean.to(pixels)) * scale.to(pixels)

    return prepare


def programs(
    network: Recognizer, twin: torch.nn.Module, work: list[Batch], few: int
) -> tuple[dict[str, Callable[[], tuple[np.ndarray, float]]], dict[str, str | float]]:
    """The programs, warmed up, and columns: seconds that ours took to compile, form of the torch.

    Each returns people's final objectives and the seconds of cvxpy; ours does all the batches of
    `work`, the strongest torch those that hold the first `few` people, the published loop only
    these; all from the same noise.
    """
    settings = masks.Settings(steps=FLAGS.steps)
    compiled = masks.generator(network, settings)
    photos = np.concatenate([batch.photos for batch in work])
    noise = np.moveaxis(masks.published_noise(settings, photos[0].shape), -1, 1)
    size, device = len(work[0].ids), next(twin.parameters()).device
    flat = torch.tensor(work[0].photos, device=device).flatten(0, 1).permute(0, 3, 1, 2)
    embed, form = strongest_torch.fastest(twin, flat.float())

    def ours(settings: masks.Settings = settings) -> tuple[np.ndarray, float]:
        params = network.ready()
        made = [masks.generate(compiled, params, settings, batch) for batch in work]
        return np.concatenate([metrics.objective[:, -1] for _, metrics in made]), 0.0

    def strongest(steps: int = FLAGS.steps) -> tuple[np.ndarray, float]:
        some = [batch.photos for batch in work[: -(-few // size)]]
        made = [strongest_torch.generate(embed, own, noise, device, steps) for own in some]
        return np.concatenate([losses[:, -1] for _, losses in made]), 0.0

    def peer(gradients: bool, few: int = few, steps: int = FLAGS.steps) -> tuple[np.ndarray, float]:
        options = {"steps": steps, "weight_gradients": gradients}
        made = [
            published_loop.generate(twin, photos[k], CONVEX_HULL, noise=noise, **options)
            for k in range(few)
        ]
        return np.array([losses[-1] for _, losses, _ in made]), sum(s for *_, s in made)

    jax.config.update("jax_enable_compilation_cache", False)
    one_step = partial(ours, dataclasses.replace(settings, steps=1))
    first, second = (timing.take_turns({"warm up": one_step}, 1)[0].wall for _ in range(2))
    strongest(steps=1)
    peer(True, few=1, steps=1)
    peer(False, few=1, steps=1)
    in_turn = {OURS: ours, STRONGEST: strongest}
    in_turn |= {RELEASED: partial(peer, True), FROZEN: partial(peer, False)}
    return in_turn, {"compile_seconds": round(first - second, 2), "strongest_torch": form}


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    use_precision(FLAGS.precision)
    torch.set_num_threads(FLAGS.torch_threads)
    torch.backends.cudnn.allow_tf32 = FLAGS.precision != "float32"  # torch's own choice is True
    machine = timing.machine(FLAGS.precision)
    photos, kind = load_photos(FLAGS.people, FLAGS.photos)
    network, twin, weights = load_networks(FLAGS.network, FLAGS.precision)
    size = math.gcd(FLAGS.people, FLAGS.people_per_batch)
    ids = np.arange(FLAGS.people, dtype=np.int32).reshape(-1, size)
    work = [Batch(k, photos[k], np.ones((size, FLAGS.photos), np.float32)) for k in ids]
    few = min(FLAGS.peer_people or (1 if FLAGS.network == IR_50 else 8), FLAGS.people)
    in_turn, prepared = programs(network, twin, work, few)
    turns = timing.take_turns(in_turn, FLAGS.rounds)

    last = {turn.program: turn.result[0] for turn in turns}
    ours, torchs = last[OURS][:few], [last[k][:few] for k in (STRONGEST, RELEASED, FROZEN)]
    apart = max(abs(ours.mean() / other.mean() - 1) for other in torchs)
    single = max(np.abs(ours / other - 1).max() for other in torchs)
    among_torchs = np.abs(torchs[0] / torchs[1] - 1).max()
    about = {
        "network": FLAGS.network,
        "weights": weights,
        "images": kind,
        "photos": FLAGS.photos,
        "steps": FLAGS.steps,
        "people_per_batch": size,
        **prepared,
        "peer_device": next(twin.parameters()).device.type,
        "peer_threads": FLAGS.torch_threads,
        "mean_objectives_apart": f"{apart:.1e}",
        "objectives_apart": f"{single:.1e}",  # of one person, at most
        "torch_objectives_apart": f"{among_torchs:.1e}",  # of the strongest and the published loop
        **machine,
    }
    counts = {name: len(objectives) for name, objectives in last.items()}
    rows = timing.report(turns, counts, "person", lambda t: {"cvxpy_share": t.result[1] / t.wall})
    print("Ours and the strongest torch take people together, the published loop one at a time:")
    print("seconds per person are compared. Relative differences of final objectives from the same")
    print(f"noise: of the mean of {few} people {apart:.1e} (limit {LIMIT_OF_MEAN}), of one person")
    print(f"at most {single:.1e} (limit {LIMIT}), between two forms of torch {among_torchs:.1e}.")
    timing.write(FLAGS.out, f"generate_{FLAGS.network}", rows, about)
    return int(not (apart <= LIMIT_OF_MEAN and single <= LIMIT))


if __name__ == "__main__":
    app.run(main)
