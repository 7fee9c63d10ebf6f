"""python benchmarks/dropout.py [--network=zoo:surrogate_softmax] [--people=10] [--rounds=5]

Seconds per step and person of masks: without dropout, with DFANet as it is, and with DFANet whose
bits come from jax.random instead of the hash of `masks/transfer.py`; the programs take turns.
"""

import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax import laboratory  # noqa: E402
from opom_jax.cli.config import use_precision  # noqa: E402
from opom_jax.data import synthetic  # noqa: E402
from opom_jax.masks import generate, transfer  # noqa: E402
from opom_jax.networks import recognizer  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("network", "zoo:surrogate_softmax", "The surrogate.")
flags.DEFINE_integer("people", 10, "People at once, ten photos each.", 1)
flags.DEFINE_integer("steps", 4, "Steps of a turn.", 1)
flags.DEFINE_integer("rounds", 5, "Turns of each program.", 1)
flags.DEFINE_string("out", str(Path(__file__).parent / "results"), "Folder of the CSV.")

PLAIN, HASH, RANDOM = "no dropout", "DFANet", "DFANet, bits of jax.random"


def jax_bits(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """As `transfer.uniform_bits`: the words are the key."""
    keys = jax.vmap(jax.random.wrap_key_data)(words)
    return jax.vmap(lambda key: jax.random.bits(key, shape))(keys)


def main(_) -> None:
    use_precision("float32")
    machine = timing.machine("float32")
    network = recognizer.load(FLAGS.network)
    params = network.ready()
    people = laboratory.everybody(synthetic.photos(range(FLAGS.people), 10))

    def program(settings: generate.Settings):
        compiled = generate.generator(network, settings)

        def run() -> np.ndarray:
            return generate.generate(compiled, params, settings, people)[0]

        run()  # compiles
        return run

    plain = generate.Settings(steps=FLAGS.steps)
    drop = generate.Settings(steps=FLAGS.steps, dropout=0.1)
    other = generate.Settings(steps=FLAGS.steps, dropout=0.1000001)  # compiled anew
    programs = {PLAIN: program(plain), HASH: program(drop)}
    with mock.patch.object(transfer, "uniform_bits", jax_bits):
        programs[RANDOM] = program(other)
    turns = timing.take_turns(programs, FLAGS.rounds)
    units = FLAGS.people * FLAGS.steps
    rows = timing.report(turns, dict.fromkeys(programs, units), "step_of_a_person")
    timing.write(FLAGS.out, f"dropout_{network.name}", rows, {"network": network.name, **machine})


if __name__ == "__main__":
    app.run(main)
