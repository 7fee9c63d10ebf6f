"""python benchmarks/depthwise.py [--rounds=3]

The kernel gradient of a depthwise convolution, which training needs: taps in a loop as
`networks/depthwise.py` has them, taps side by side, and the library's own gradient of a convolution
with a group a channel. Seconds until XLA has compiled each (no compilation cache), and of a call.
All must agree.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opom_jax.cli import prepare_jax  # noqa: E402

prepare_jax()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from jax import lax  # noqa: E402

from benchmarks import timing  # noqa: E402
from opom_jax.networks.depthwise import depthwise  # noqa: E402

FLAGS = flags.FLAGS
CALLS = 10  # of a turn
flags.DEFINE_integer("rounds", 3, "Turns of each program.", 1)
flags.DEFINE_list("shape", ["32", "28", "28", "64"], "Of the photos' features.")
flags.DEFINE_multi_integer("size", [3, 7], "Sides of the kernels.")
flags.DEFINE_string("out", str(Path(__file__).parent / "results"), "Folder of the CSV.")


def in_a_loop(x, kernel, cotangent):
    """As in the package."""
    _, vjp = jax.vjp(lambda k: depthwise(x, k, 1, len(k) // 2), kernel)
    return vjp(cotangent)[0]


def side_by_side(x, kernel, cotangent):
    """The same sums, all in one program."""
    size, reach = len(kernel), len(kernel) // 2
    _, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))

    def tap(i, j):
        products = padded[:, i : i + height, j : j + width] * cotangent
        return products.reshape(-1, width * channels).sum(0).reshape(width, channels).sum(0)

    return jnp.stack([jnp.stack([tap(i, j) for j in range(size)]) for i in range(size)])


def library(x, kernel, cotangent):
    """XLA's convolution with a group a channel."""
    pads = [(len(kernel) // 2,) * 2] * 2
    options = {"feature_group_count": x.shape[3], "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    forward = lambda k: lax.conv_general_dilated(x, k[:, :, None], (1, 1), pads, **options)  # noqa: E731
    return jax.vjp(forward, kernel)[1](cotangent)[0]


def main(_) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    machine, rows = timing.machine("float32"), []
    shape, random = tuple(map(int, FLAGS.shape)), np.random.default_rng(0)
    for size in FLAGS.size:
        shapes = shape, (size, size, shape[3]), shape
        arrays = [jnp.asarray(random.standard_normal(s, np.float32)) for s in shapes]
        ways = {"in a loop": in_a_loop, "side by side": side_by_side, "library": library}
        compiled = {name: jax.jit(way).lower(*arrays).compile() for name, way in ways.items()}
        wanted = compiled["library"](*arrays)
        for name, program in compiled.items():
            error = jnp.abs(program(*arrays) - wanted).max() / jnp.abs(wanted).max()
            print(f"{size} x {size}, {name}: off by {error:.1e} of the largest value")
            assert error < 1e-5
        for what, programs, count in (
            ("compilation", {n: _compiling(way, arrays) for n, way in ways.items()}, 1),
            ("call", {n: _calling(program, arrays) for n, program in compiled.items()}, CALLS),
        ):
            turns = timing.take_turns(programs, FLAGS.rounds)
            counts = dict.fromkeys(programs, count)
            for row in timing.report(turns, counts, what):
                rows.append({"what": what, "size": size, **_one_name(row, what)})
    timing.write(FLAGS.out, "depthwise", rows, machine)


def _one_name(row, what):
    return {name.removesuffix(f"_per_{what}"): value for name, value in row.items()}


def _compiling(way, arrays):
    return lambda: jax.jit(lambda *a: way(*a)).lower(*arrays).compile()


def _calling(program, arrays):
    def often():
        for _ in range(CALLS):
            jax.block_until_ready(program(*arrays))

    return often


if __name__ == "__main__":
    app.run(main)
