"""python benchmarks/fig6.py [--people=100] [--rounds=3] [--surrogate=Softmax]

The paper's Fig. 6 with the networks of the package on synthetic people whom none of them saw: mean
Top-1 protection over the targets against the seconds until 100 new photos are masked. Masks for
everybody and for a person are made once and then only added; what making them took, compiling
included, is the last column. LowKey's LPIPS needs a network trained on ImageNet; 1 - SSIM stands in
for it.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import cache_folder, prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax import laboratory  # noqa: E402
from opom_jax.baselines import specific  # noqa: E402
from opom_jax.cli.config import use_precision  # noqa: E402
from opom_jax.cli.progress import Progress  # noqa: E402
from opom_jax.masks.apply import apply_mask  # noqa: E402
from opom_jax.masks.generate import Settings  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402
from opom_jax.networks.recognizer import Recognizer  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 100, "Synthetic people with 5 probes each.", 20, 10_000)
flags.DEFINE_integer("distractors", 2000, "Other people in the gallery.", 10, 100_000)
flags.DEFINE_integer("everybody", 20, "People whose photos make the mask for everybody.", 1)
flags.DEFINE_integer("rounds", 3, "Turns of each method.", 1)
flags.DEFINE_multi_enum(
    "surrogate",
    ["Softmax"],
    list(laboratory.SURROGATES),
    "Masks for photos attack all that are named, the others the first.",
)
flags.DEFINE_string("out", str(Path(__file__).parent / "results"), "Folder of the CSV.")

NEW = 100  # photos that are timed
ADDING = "adding a mask"
PERSON_SPECIFIC = ("FI-UAP", "OPOM-AffineHull", "OPOM-ConvexHull")


def fi_uap_all(network: Recognizer, train: np.ndarray) -> np.ndarray:
    """FI-UAP on the photos of many people together (3.3.2): f32[P,H,W,3], all alike."""
    together = train[: FLAGS.everybody].reshape(1, -1, *train.shape[2:])
    mask = laboratory.make_masks(network, Settings(method="fi_uap"), together)
    return np.broadcast_to(mask, (len(train), *mask.shape[1:]))


def made_once(network: Recognizer, train: np.ndarray) -> dict[tuple[str, str], Callable]:
    """(kind, method) -> what makes the masks of everybody."""

    def person_specific(name: str) -> Callable[[], np.ndarray]:
        settings = Settings(method=laboratory.METHODS[name])
        return lambda: laboratory.make_masks(network, settings, train)

    return {
        laboratory.NOISE: lambda: laboratory.random_masks(len(train), train.shape[2]),
        ("universal", "FI-UAP-all"): lambda: fi_uap_all(network, train),
        **{("person-specific", name): person_specific(name) for name in PERSON_SPECIFIC},
    }


def new_photos(
    networks: Sequence[Recognizer], photos: laboratory.Photos, mask: np.ndarray
) -> dict[str, float]:
    """Median seconds until new photos are masked, by image-specific method and with a mask."""
    new = photos.probes[:NEW]

    def program(name: str) -> Callable[[], np.ndarray]:
        attack = specific.METHODS[laboratory.IMAGE_SPECIFIC[name]]
        specific.image_masks(networks, attack, new[:20])  # compiles
        return lambda: apply_mask(new, specific.image_masks(networks, attack, new))

    programs: dict[str, Callable] = {name: program(name) for name in laboratory.IMAGE_SPECIFIC}
    turns = timing.take_turns(programs | {ADDING: lambda: apply_mask(new, mask)}, FLAGS.rounds)
    walls: dict[str, list[float]] = {}
    for turn in turns:
        walls.setdefault(turn.program, []).append(turn.wall)
    return {name: median(wall) for name, wall in walls.items()}


def main(_) -> None:
    use_precision("float32")
    machine = timing.machine("float32")
    networks = [recognizer.load(laboratory.SURROGATES[name]) for name in FLAGS.surrogate]
    targets = {name: recognizer.load(folder) for name, folder in laboratory.TARGETS.items()}
    progress = Progress("drawing people", "photos")
    photos = laboratory.synthetic_photos(
        FLAGS.people, distractors=FLAGS.distractors, progress=progress
    )
    made, once = {}, {}
    for row, make in made_once(networks[0], photos.train).items():
        start = perf_counter()
        made[row] = make()
        once[row] = perf_counter() - start
    seconds = new_photos(networks, photos, made[laboratory.NOISE][0])
    for name, method in laboratory.IMAGE_SPECIFIC.items():
        attack, progress = specific.METHODS[method], Progress(name, "probes")
        made["image-specific", name] = laboratory.protect_probes(
            networks, attack, photos, progress=progress
        )
    cache = cache_folder() / "features"
    table, _ = laboratory.protection(targets, photos, made, cache, Progress("ranking", "targets"))

    rows = [
        {
            "kind": kind,
            "method": method,
            "mean_top1": rates[:, 0].mean(),
            "seconds_per_100_photos": seconds.get(method, seconds[ADDING]),
            "seconds_once": once.get((kind, method), 0.0),
        }
        for (kind, method), rates in zip(table.rows, table.rates, strict=True)
    ]
    print("\n| kind | method | mean Top-1, % | s for 100 new photos | s once |")
    print("|---|---|--:|--:|--:|")
    print(f"| - | no mask | {table.none[:, 0].mean():.1f} | | |")
    for row in rows:
        kind, method, *numbers = row.values()
        print(f"| {kind} | {method} | " + " | ".join(f"{n:.3g}" for n in numbers) + " |")
    about = {
        "surrogates": " ".join(FLAGS.surrogate),
        "targets": " ".join(targets),
        "people": FLAGS.people,
        "tests": table.tests,
        "perceptual": "1 - SSIM for LPIPS",
        **machine,
    }
    timing.write(FLAGS.out, "fig6", rows, about)


if __name__ == "__main__":
    app.run(main)
