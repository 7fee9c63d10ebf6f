"""What decides a baseline's masks."""

import dataclasses
import math
from typing import Any

from opom_jax.errors import InputError
from opom_jax.masks import generate as masks

NAMES = ("fi_uap_all", "gd_uap", "gap")


@dataclasses.dataclass(frozen=True)
class Settings(masks.Settings):
    """Everything that decides a baseline's masks besides photos and network; defaults as published.

    Of the settings of masks FI-UAP-all takes those of FI-UAP, GD-UAP epsilon, seed and start, GAP
    epsilon, seed and form; momentum and dropout has none of them.

    Attributes:
      method: name of `opom_jax.methods`.
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
