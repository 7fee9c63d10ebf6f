"""python benchmarks/causes.py [--people=20 --surrogate=Softmax --only=NAME,... --real=FOLDER]

Where docs/results.md has another order than the paper: the same methods with one thing changed,
on the networks of the package or on the real ones of a folder. Prints and stores the mean Top-1
protection of each over the targets, but for the surrogate itself, in percent; and how alike DFANet
leaves what the surrogate sees (`likeness`). A CSV a group.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax import laboratory  # noqa: E402
from opom_jax.baselines import specific  # noqa: E402
from opom_jax.baselines.settings import Settings as Baseline  # noqa: E402
from opom_jax.cli.config import use_precision  # noqa: E402
from opom_jax.cli.table import real_world  # noqa: E402
from opom_jax.evaluation.features import BATCH, batches, extractor  # noqa: E402
from opom_jax.evaluation.identification import ranks  # noqa: E402
from opom_jax.masks.apply import apply_mask  # noqa: E402
from opom_jax.masks.generate import Settings  # noqa: E402
from opom_jax.masks.transfer import dfanet  # noqa: E402
from opom_jax.networks.recognizer import Recognizer, normalize  # noqa: E402
from opom_jax.tables.worlds import World, zoo  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer("people", 20, "The first ones.", lower_bound=1)
flags.DEFINE_string("surrogate", "Softmax", "What makes the masks.")
flags.DEFINE_list("only", [], "Groups of what to do; empty for all.")
flags.DEFINE_string("real", "", "Folder of real weights and faces; empty: what the package has.")
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")

Make = Callable[[Recognizer, laboratory.Photos], np.ndarray]  # the masked probes u8[B,H,W,C]


def of_people(settings: Settings | Baseline, photos: int = 0) -> Make:
    """Masks that serve more than one photo, of the first training photos (0: of all)."""

    def make(network: Recognizer, world: laboratory.Photos) -> np.ndarray:
        made = laboratory.make_masks(network, settings, world.train[:, : photos or None], 4)
        return laboratory.masked_probes(world, made)

    return make


def of_photos(name: str, **changes) -> Make:
    """A mask for every probe."""
    attack = dataclasses.replace(specific.METHODS[name], **changes)

    def make(network: Recognizer, world: laboratory.Photos) -> np.ndarray:
        return apply_mask(world.probes, specific.image_masks([network], attack, world.probes))

    return make


def paper(**changes) -> Settings:
    """ConvexHull as the paper writes objective and update."""
    return Settings(form="paper", initial_steps=0, **changes)


TRANSFER = {"steps": 100, "momentum": 1.0, "dropout": 0.1}
ALIKE, RATES = "likeness", (0.1, 0.05, 0.02, 0.01)  # of a network's features under DFANet
GROUPS: dict[str, dict[str, Make]] = {
    "form": {
        "ConvexHull": of_people(Settings()),
        "ConvexHull, momentum and DFANet": of_people(Settings(**TRANSFER)),
        "ConvexHull, paper's form": of_people(paper()),
        "the same, momentum and DFANet": of_people(paper(**TRANSFER)),
    },
    "affine": {
        f"{method} of {photos} photos": of_people(Settings(method=method), photos)
        for photos in (3, 5, 10)
        for method in ("fi_uap", "affine_hull")
    },
    "everybody": {
        "GAP": of_people(Baseline(method="gap")),
        **{
            f"FI-UAP-all, {steps} steps": of_people(Baseline(method="fi_uap_all", steps=steps))
            for steps in (16, 50, 150)
        },
    },
    "photo": {
        "FIM": of_photos("fim"),
        "FIM, 50 steps": of_photos("fim", steps=50),
        "FIM, half of the steps see another view": of_photos("fim", diversity=0.5),
        "M-DI2-APF, 16 steps": of_photos("m_di2_apf", steps=16),
        "M-DI2-APF, 50 steps": of_photos("m_di2_apf", steps=50),
        "M-DI2-APF": of_photos("m_di2_apf"),
        "M-DI2-APF, every step sees another view": of_photos("m_di2_apf", diversity=1.0),
    },
    "gd_uap": {
        f"GD-UAP, at most {most} steps": of_people(Baseline(method="gd_uap", iterations=most))
        for most in (400, 10_000)
    },
}

flags.register_validator(
    "only",
    lambda names: set(names) <= {ALIKE, *GROUPS},
    f"names of {', '.join((ALIKE, *GROUPS))}",
)


class Targets:
    """Those of a world but for the surrogate, and what they see where nothing is masked."""

    def __init__(self, world: World, surrogate: Recognizer):
        self.counts, self.seen = world.photos.counts, []
        for target in world.targets.values():
            if target.digest == surrogate.digest:
                continue
            see = extractor(target)
            clean = (world.photos.probes, world.photos.distractors)
            self.seen.append((see, *(see(batches(part)) for part in clean)))

    def top_1(self, shown: np.ndarray) -> float:
        """Mean Top-1 protection of probes u8[B,H,W,C] over them, in percent."""
        found = [
            ranks(see(batches(shown)), gallery, self.counts, others).protection()[0]
            for see, gallery, others in self.seen
        ]
        return float(np.mean(found))


def likeness(network: Recognizer, photos: np.ndarray, rate: float) -> dict[str, float]:
    """Mean cosines of a photo's features by two draws of DFANet, and by a draw and none."""
    draws = (dfanet(network.embed, rate, "published", jax.random.key(k)) for k in (0, 1))
    one, two, whole = (
        np.asarray(normalize(embed(network.params, photos.astype(np.float32))))
        for embed in (*draws, network.embed)
    )
    cosines = {"two_draws": (one * two).sum(1), "draw_and_none": (one * whole).sum(1)}
    return {pair: round(float(cosine.mean()), 2) for pair, cosine in cosines.items()}


def main(argv: list[str]) -> int:
    """Makes, measures, writes the CSVs."""
    del argv
    use_precision("float32")
    about = {"people": FLAGS.people, "surrogate": FLAGS.surrogate, **timing.machine("float32")}
    with TemporaryDirectory() as folder:
        real = FLAGS.real and real_world(Path(FLAGS.real), Path(folder), FLAGS.people)
    world = real or zoo(FLAGS.people)
    if FLAGS.surrogate not in world.surrogates:
        raise app.UsageError(f"--surrogate is one of {', '.join(world.surrogates)}.")
    network = world.surrogates[FLAGS.surrogate]
    chosen = FLAGS.only or (ALIKE, *GROUPS)
    if ALIKE in chosen:
        rows = [
            {"dropout": rate, **likeness(network, world.photos.probes[:BATCH], rate)}
            for rate in RATES
        ]
        print(*rows, sep="\n")
        timing.write(FLAGS.out, f"causes_{ALIKE}_{FLAGS.surrogate.lower()}", rows, about)
    if groups := [name for name in GROUPS if name in chosen]:
        compare(world, network, groups, about)
    return 0


def compare(world: World, network: Recognizer, groups: Sequence[str], about: dict) -> None:
    """Makes and measures what is in these groups."""
    targets = Targets(world, network)
    for group in groups:
        rows = []
        for name, make in GROUPS[group].items():
            start = perf_counter()
            shown = make(network, world.photos)
            seconds = perf_counter() - start
            rows.append({"group": group, "variant": name, "top1": round(targets.top_1(shown), 1)})
            print(f"{name:45} {rows[-1]['top1']:5.1f}   {seconds:.0f} s", flush=True)
        timing.write(FLAGS.out, f"causes_{group}_{FLAGS.surrogate.lower()}", rows, about)


if __name__ == "__main__":
    app.run(main)
