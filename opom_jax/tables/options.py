"""What a table may be told besides the study."""

from collections.abc import Callable
from typing import NamedTuple

from opom_jax.tables.films import Film, of_world
from opom_jax.tables.worlds import World


class Options(NamedTuple):
    """Settings of all tables; defaults as published.

    Attributes:
      surrogates: names in the order of the table.
      seeds: random starts of FI-UAP, FI-UAP+ and OPOM; the baselines have one.
      iterations: most steps of GD-UAP.
      epochs: of GAP.
      steps, momentum, dropout: of masks with momentum and DFANet.
      counts: masks a person in Table 6.
      films: of Figures 7 and 8.
    """

    surrogates: tuple[str, ...]
    seeds: int = 1
    iterations: int = 10_000
    epochs: int = 10
    steps: int = 100
    momentum: float = 1.0
    dropout: float = 0.1
    counts: tuple[int, ...] = (1, 5, 10)
    films: Callable[[World], list[Film]] = of_world
