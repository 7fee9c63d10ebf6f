"""What the paper prints in its Tables 2 to 6: `published.csv`, a number a line.

Columns: table; surrogate; method, as `laboratory.METHODS` and `COMPARED` name it, or in Table 6 the
masks of a person, "n_M=1"; target; measure, "top1" and "top5", in Table 6 "m-o" and "m-m" (both
Top-1); value, percent; spread, the number after +- in Table 6; gain, the number in brackets in
Tables 4 and 5.
"""

import csv
from functools import cache
from pathlib import Path

from opom_jax.laboratory import TARGETS

FILE = Path(__file__).with_suffix(".csv")


def rate(table: int, surrogate: str, method: str, target: str, measure: str) -> float | None:
    """Protection rate in percent, or None where the paper has none.

    >>> rate(2, "Softmax", "OPOM-ConvexHull", "ArcFace", "top1")
    78.0
    """
    return _rates().get((str(table), surrogate, method, target, measure))


def mean(table: int, surrogate: str, method: str, measure: str) -> float | None:
    """Mean of `rate` over the six targets, or None where the paper has none."""
    found = [rate(table, surrogate, method, target, measure) for target in TARGETS]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


@cache
def _rates() -> dict[tuple[str, ...], float]:
    with FILE.open(newline="", encoding="utf-8") as file:
        _, *lines = csv.reader(file)
    return {tuple(key): float(value) for *key, value, _, _ in lines}
