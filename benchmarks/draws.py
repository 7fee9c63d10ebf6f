"""python benchmarks/draws.py [--rounds=3]

Seconds until XLA has compiled a draw of jax.random, along one axis as `draws.py` has it and in the
shape that is wanted; and until the shapes of IR-50's weights are known, with one key for all layers
as `layers.abstract` has it and with a key a layer; and until XLA has compiled the seeds of DFANet
for fifty convolutions, all at once and one after the other. No compilation cache.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from absl import app, flags  # noqa: E402
from flax import nnx  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax.draws import drawn  # noqa: E402
from opom_jax.masks.transfer import seeds  # noqa: E402
from opom_jax.networks.layers import abstract  # noqa: E402
from opom_jax.networks.registry import NETWORKS  # noqa: E402

FLAGS = flags.FLAGS
PHOTOS, PLACES = 10, 50
flags.DEFINE_integer("rounds", 3, "Turns of each program.", 1)
flags.DEFINE_list("shape", ["10", "112", "112", "3"], "What is drawn.")
flags.DEFINE_string("out", str(Path(__file__).parent / "results"), "Folder of the CSV.")


def main(_) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    shape, build = tuple(map(int, FLAGS.shape)), NETWORKS["ir_50"].build

    def compiled(draw):
        return lambda: jax.jit(lambda key: draw(key)).lower(jax.random.key(0)).compile()

    def one_by_one(key):
        photos = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(PHOTOS))
        bits = lambda key, place: jax.random.bits(jax.random.fold_in(key, place), (2,))  # noqa: E731
        each = [jax.vmap(bits, (0, None))(photos, place) for place in range(PLACES)]
        return jnp.stack(each, 1)

    machine = timing.machine("float32")
    pairs = {
        "compilation": {
            "along one axis": compiled(lambda key: drawn(jax.random.uniform, key, shape)),
            "along all axes": compiled(lambda key: jax.random.uniform(key, shape)),
        },
        "network": {
            "one key": lambda: abstract(build),
            "a key a layer": lambda: nnx.eval_shape(lambda: build(nnx.Rngs(0))),
        },
        "dropout": {
            "at once": compiled(lambda key: seeds(key, PHOTOS, PLACES)),
            "one by one": compiled(one_by_one),
        },
    }
    rows = []
    for unit, programs in pairs.items():
        turns = timing.take_turns(programs, FLAGS.rounds)
        for row in timing.report(turns, dict.fromkeys(programs, 1), "unit"):
            rows.append({"what": unit, **row})
    timing.write(FLAGS.out, "draws", rows, machine)


if __name__ == "__main__":
    app.run(main)
