"""Loss and speed of a run, and the watch over both."""

import math
import time

import jax

from opom_jax.errors import InputError
from opom_jax.training.step import Metrics


class Meter:
    """Loss and speed since the last evaluation or, after an interruption, since the run went on:
    their first means then are of fewer steps. Looks at a step when the next one is under way, so
    that devices never wait for it."""

    def __init__(self, batch: int):
        self.batch, self.loss = batch, math.nan
        self.waiting: tuple[int, Metrics] | None = None
        self.restart()

    def restart(self) -> None:
        """Forgets all steps: what follows is summed and timed anew."""
        self.total, self.steps, self.start = 0.0, 0, None

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the step that was just sent to the devices; InputError if the one before it broke
        the weights."""
        self.settle()
        self.waiting = step, metrics
        if self.start is None:  # the first step compiles, so it is not timed
            jax.block_until_ready(metrics)
            self.start = self.end = time.monotonic()

    def settle(self) -> None:
        """Waits for the last step; InputError if it broke the weights."""
        if self.waiting is None:
            return
        step, metrics = self.waiting
        self.waiting, self.loss = None, float(metrics.loss)
        if not (math.isfinite(self.loss) and math.isfinite(float(metrics.gradient))):
            raise broken(step)
        self.total, self.steps = self.total + self.loss, self.steps + 1
        self.end = time.monotonic()

    def summary(self) -> dict[str, float | None]:
        """Mean loss, the number of steps of which it is the mean, and images a second; None where
        there was no step."""
        seconds = self.end - self.start if self.steps > 1 and self.start else 0.0
        return {
            "loss": self.total / self.steps if self.steps else None,
            "steps_averaged": self.steps,
            "images_per_second": (self.steps - 1) * self.batch / seconds if seconds else None,
        }


def broken(step: int) -> InputError:
    """What is said when numbers are no longer numbers."""
    return InputError(
        f"Loss, gradient or features are not finite at step {step}; lower config.learning_rate "
        "and use another --workdir."
    )
