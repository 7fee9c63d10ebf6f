"""What decides a baseline's masks, and what a baseline gives back."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from opom_jax.errors import InputError
from opom_jax.masks import generate as masks

NAMES = ("fi_uap_all", "gd_uap", "gap")
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Settings(masks.Settings):
    """Everything that decides a baseline's masks besides photos and network; defaults as published.

    Of the settings of masks FI-UAP-all takes those of FI-UAP, GD-UAP epsilon, seed and start, GAP
    epsilon, seed and form; momentum and dropout has none of them.

    Attributes:
      method: name of `methods.BASELINES`.
      iterations: most steps of GD-UAP.
      epochs: of GAP, passes through all photos.
      photos_per_step: of GAP.
      learning_rate: of GAP.
      width: channels of GAP's first convolution.
      blocks: residual blocks of GAP's generator.
    """

    method: str = "fi_uap_all"
    iterations: int = 10_000
    epochs: int = 10
    photos_per_step: int = 30
    learning_rate: float = 2e-4
    width: int = 64
    blocks: int = 6

    def fi_uap(self) -> masks.Settings:
        """The settings of masks, for FI-UAP."""
        fields = masks.Settings.__dataclass_fields__
        shared: dict[str, Any] = {name: getattr(self, name) for name in fields}
        shared["method"] = "fi_uap"
        return masks.Settings(**shared)

    def check(self) -> None:
        """Raises InputError naming the first setting that is out of range."""
        self.fi_uap().check()
        for name, ok, wanted in (
            ("method", self.method in NAMES, f"one of {', '.join(NAMES)}"),
            ("momentum", self.momentum == 0, f"0 with {self.method}"),
            ("dropout", self.dropout == 0, f"0 with {self.method}"),
            ("iterations", 1 <= self.iterations <= 1_000_000, "at least 1 and at most 1000000"),
            ("epochs", 1 <= self.epochs <= 100_000, "at least 1 and at most 100000"),
            ("photos_per_step", 1 <= self.photos_per_step <= 10**6, "between 1 and 1000000"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0 and finite"),
            ("width", 1 <= self.width <= 1024, "between 1 and 1024"),
            ("blocks", 0 <= self.blocks <= 100, "between 0 and 100"),
        ):
            if not ok:
                raise InputError(f"{name}={getattr(self, name)!r} must be {wanted}.")


class Made(NamedTuple):
    """The masks of a baseline.

    Attributes:
      masks: f32[P,H,W,C] in [-epsilon, epsilon]; a universal mask is everybody's.
      metrics: {name: [P,...]}, a row a person.
    """

    masks: np.ndarray
    metrics: dict[str, np.ndarray]

    @classmethod
    def of_everybody(cls, people: int, mask: np.ndarray, metrics: dict[str, np.ndarray]) -> "Made":
        """One mask f32[H,W,C], and the metrics of one run, for every person."""

        def repeated(array) -> np.ndarray:
            return np.broadcast_to(np.asarray(array, np.float32), (people, *np.shape(array)))

        return cls(repeated(mask), {name: repeated(values) for name, values in metrics.items()})
