"""python benchmarks/scaling.py [--devices=1,2,4,8 --processes=2 --people=16 --rounds=3]

Masks a second of the same people over more and more devices of one process and over several
processes, against one of each. On the CPU devices are virtual: the cores stay the same, so what
shows is the cost of sharing, not a gain. Every number comes from a process of its own, in turns,
without imports and compiling. Exits 1 if a mask differs by one bit from that of one device.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, sleep, time

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax import parallel  # noqa: E402
from opom_jax.masks import generate as masks  # noqa: E402
from opom_jax.masks.batches import Batch  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402

KNOWN = ("people", "photos", "steps", "people_per_batch", "network")

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "devices", ["1", "2", "4", "8"], "Devices of one process; 1 is always among them."
)
flags.DEFINE_list("processes", ["2"], "Processes with one device each.")
for name in ("devices", "processes"):
    flags.register_validator(
        name, lambda counts: all(re.fullmatch("[1-9][0-9]?", n) for n in counts), "numbers, 1 to 99"
    )
flags.DEFINE_integer("people", 16, "People.", lower_bound=1)
flags.DEFINE_integer("photos", 10, "Photos of a person.", lower_bound=1)
flags.DEFINE_integer("steps", 4, "Steps.", lower_bound=1)
flags.DEFINE_integer("people_per_batch", 1, "On each device.", lower_bound=1)
flags.DEFINE_string("network", "zoo:surrogate_softmax", "Folder of a converted network.")
flags.DEFINE_integer("rounds", 3, "Turns of each.", lower_bound=1)
flags.DEFINE_float("ready", 30.0, "Seconds until all processes of a run have surely compiled.")
flags.DEFINE_string("share", "", "I/K of the people, starting at a time: the script's own flag.")
flags.DEFINE_string("out", str(ROOT / "benchmarks" / "results"), "Folder of the CSV.")


def worker() -> None:
    """Makes a share of the masks; prints when it began and ended, and what identifies the masks."""
    share, start = FLAGS.share.split("@")
    own = parallel.Share(*map(int, share.split("/"))).of(range(FLAGS.people))
    network = recognizer.load(FLAGS.network)
    shape = FLAGS.photos, network.spec.size, network.spec.size, 3
    draw = [np.random.default_rng(k).integers(0, 256, shape, np.uint8) for k in own]
    valid = np.ones((len(own), FLAGS.photos), np.float32)
    batch = Batch(np.array(own, np.int32), np.stack(draw), valid)

    def make(steps: int) -> np.ndarray:
        settings = masks.Settings(steps=steps)
        return masks.make(network, settings, batch, FLAGS.people_per_batch).masks

    make(FLAGS.steps)  # compiles
    sleep(max(0.0, float(start) - time()))
    begin = time()
    made = make(FLAGS.steps)
    prints = [hashlib.sha256(mask.tobytes()).hexdigest() for mask in made]
    print(begin, time(), *prints)


def run(devices: int, processes: int) -> tuple[float, list[str]]:
    """Seconds from the first process's start to the last one's end, and the masks' digests."""
    count = f"--xla_force_host_platform_device_count={devices}"

    def environment(k: int) -> dict[str, str]:
        visible = range(k * devices, (k + 1) * devices)
        return os.environ | {
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, visible)),
        }

    given = [f"--{name}={FLAGS[name].value}" for name in KNOWN]
    together = time() + FLAGS.ready
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *given, f"--share={k}/{processes}@{together}"],
            env=environment(k),
            stdout=subprocess.PIPE,
            text=True,
        )
        for k in range(processes)
    ]
    said = [process.communicate()[0].split() for process in started]
    prints = [""] * FLAGS.people
    for k, (_, _, *own) in enumerate(said):
        prints[k::processes] = own
    return max(float(end) for _, end, *_ in said) - min(float(begin) for begin, *_ in said), prints


def main(argv: list[str]) -> int:
    """Measures, prints the table, writes the CSV; returns the exit code."""
    del argv
    if FLAGS.share:
        worker()
        return 0
    machine = timing.machine("float32")
    kinds = {(1, 1): None} | {(int(count), 1): None for count in FLAGS.devices}
    kinds = list(kinds | {(1, int(count)): None for count in FLAGS.processes})
    most = max(devices * processes for devices, processes in kinds)
    if FLAGS.people < most:
        sys.exit(f"--people={FLAGS.people} leaves devices without people; give at least {most}.")
    rows, prints = [], {}
    for number in range(1, FLAGS.rounds + 1):
        for devices, processes in kinds:
            start = perf_counter()
            seconds, prints[devices, processes] = run(devices, processes)
            row = {"devices": devices, "processes": processes, "round": number}
            rows.append(row | {"masks_per_second": FLAGS.people / seconds, "seconds": seconds})
            print(f"{rows[-1]} ({perf_counter() - start:.0f} s in all)", flush=True)
    alone = median(
        row["masks_per_second"] for row in rows if row["devices"] == 1 == row["processes"]
    )
    for devices, processes in kinds:
        own = [
            row["masks_per_second"]
            for row in rows
            if (row["devices"], row["processes"]) == (devices, processes)
        ]
        print(f"{devices} devices, {processes} processes: {median(own):.3g} masks/s, ", end="")
        print(f"{median(own) / alone:.2f} of one device")
    equal = all(made == prints[kinds[0]] for made in prints.values())
    print("All masks are bit-equal." if equal else "Masks differ.")
    about = {name: FLAGS[name].value for name in KNOWN} | {"bit_equal": equal} | machine
    timing.write(FLAGS.out, "scaling", rows, about)
    return int(not equal)


if __name__ == "__main__":
    app.run(main)
