"""python benchmarks/start.py [--rounds=3]

Seconds from the start of a process to the masks of two people (ten photos each, MobileFaceNet with
random weights, two steps) on disk: `run.py generate` with an empty and with a filled compilation
cache, and a torch process that does the same without compiling anything (`start_torch.py`). They
take turns; a cache of their own, in a temporary folder, not the user's.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import timing  # noqa: E402
from converters.convert import translate  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402
from tests import torch_twins  # noqa: E402

NETWORK, PEOPLE, PHOTOS, SIZE = "mobilefacenet_xiaoccer", 2, 10, 112
WARM, COLD, TORCH = "opom_jax, cache filled", "opom_jax, cache empty", "torch, eager"

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def prepare(folder: Path) -> None:
    """Writes the network for both, and photos of smooth noise."""
    torch.manual_seed(0)
    state = getattr(torch_twins, NETWORK)().state_dict()
    torch.save(state, folder / "weights.pt")
    arrays = {key: value.numpy() for key, value in state.items()}
    recognizer.save(folder / "network", NETWORK, translate(folder, {"": arrays}, NETWORK), {})
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        (folder / "people" / str(person)).mkdir(parents=True)
        for photo in range(PHOTOS):
            coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8))
            smooth = coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            smooth.save(folder / "people" / str(person) / f"{photo}.png")


def run(folder: Path, arguments: list[str], cache: str) -> None:
    """A process to its end; its masks must be there."""
    made = folder / ("torch" if "torch" in arguments[0] else "run/masks")
    shutil.rmtree(made.parent if made.name == "masks" else made, ignore_errors=True)
    if cache == "empty":
        shutil.rmtree(folder / cache, ignore_errors=True)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / cache)}
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    if len(list(made.glob("*.npy"))) != PEOPLE:
        raise RuntimeError(f"{arguments} made other masks than wanted")


def main(argv: list[str]) -> None:
    """Measures, prints the table, writes the CSV."""
    del argv
    machine = timing.machine("float32")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        generate = [
            "run.py",
            "generate",
            f"--workdir={folder / 'run'}",
            f"--config.surrogate={folder / 'network'}",
            f"--config.data.people={folder / 'people'}",
            f"--config.data.train_per_person={PHOTOS}",
            f"--config.people_per_batch={PEOPLE}",
            "--config.steps=2",
            "--config.initial_steps=1",
        ]
        start_torch = ["benchmarks/start_torch.py", str(folder)]
        programs = {
            WARM: partial(run, folder, generate, "filled"),
            COLD: partial(run, folder, generate, "empty"),
            TORCH: partial(run, folder, start_torch, "empty"),
        }
        programs[WARM]()
        programs[TORCH]()
        turns = timing.take_turns(programs, FLAGS.rounds)
    rows = timing.report(turns, dict.fromkeys(programs, 1), "process")
    timing.write(FLAGS.out, "start", rows, {"network": NETWORK, "people": PEOPLE, **machine})


if __name__ == "__main__":
    app.run(main)
