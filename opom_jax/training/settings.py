"""What decides a trained network besides its photos."""

import dataclasses
import math

from opom_jax.errors import InputError
from opom_jax.networks.recognizer import PRECISIONS
from opom_jax.networks.registry import NETWORKS
from opom_jax.training.heads import HEADS

OPTIMIZERS = ("sgd", "adamw", "muon")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the weights; the defaults are a small ArcFace run.

    Attributes:
      network: a name of the registry.
      head: a name of `heads.HEADS`.
      scale: s of the head; 0 for the head's own.
      margin: m of the head; negative for the head's own.
      steps: T, of the whole run (the learning rate ends at zero there).
      batch: B, photos a step.
      learning_rate: the highest.
      warmup: steps in which it grows from zero to that.
      optimizer: "sgd" (momentum 0.9), "adamw" or "muon".
      weight_decay: of kernels and class weights, not of norms, biases and slopes; with muon of
        dense kernels alone.
      clip: longest gradient over all weights; longer ones are shortened to it.
      augment: strength of the random changes of photos, 0 to 1.
      seed: of weights, order and augmentation.
      precision: "float32" or "bfloat16": convolutions; weights, norms and loss stay float32.
    """

    network: str = "ir_small"
    head: str = "arcface"
    scale: float = 0.0
    margin: float = -1.0
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 0.1
    warmup: int = 200
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    clip: float = 5.0
    augment: float = 1.0
    seed: int = 0
    precision: str = "float32"

    def check(self) -> None:
        """Raises InputError naming the first setting that is out of range."""
        for name, ok, wanted in (
            ("network", self.network in NETWORKS, f"one of {', '.join(NETWORKS)}"),
            ("head", self.head in HEADS, f"one of {', '.join(HEADS)}"),
            ("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            ("scale", 0 <= self.scale <= 1000, "between 0 and 1000"),
            ("margin", self.margin < math.pi / 2, "below pi / 2"),
            ("steps", 1 <= self.steps <= 10**9, "at least 1 and at most 1000000000"),
            ("batch", 2 <= self.batch <= 10**6, "at least 2 and at most 1000000"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0 and finite"),
            ("warmup", 0 <= self.warmup < self.steps, "at least 0 and less than config.steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more and finite"),
            ("clip", 0 < self.clip < math.inf, "above 0 and finite"),
            ("augment", 0 <= self.augment <= 1, "between 0 and 1"),
            ("seed", 0 <= self.seed < 2**32, "between 0 and 4294967295"),
        ):
            if not ok:
                raise InputError(f"config.{name}={getattr(self, name)!r} must be {wanted}.")

    def check_batch(self, photos: int, devices: int) -> None:
        """Raises InputError if a batch does not fit the photos or the devices."""
        if self.batch > photos:
            raise InputError(
                f"config.batch={self.batch} is more than the {photos} photos to train on; "
                "lower it or add photos."
            )
        if self.batch % devices:
            raise InputError(
                f"config.batch={self.batch} cannot be divided by {devices} devices; "
                f"make it a multiple of {devices} or set config.devices."
            )
