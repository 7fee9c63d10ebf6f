"""The table of baselines."""

from pathlib import Path
from typing import Protocol

from opom_jax.baselines.fi_uap_all import fi_uap_all
from opom_jax.baselines.gap import gap
from opom_jax.baselines.gd_uap import gd_uap
from opom_jax.baselines.settings import Made, Progress, Settings
from opom_jax.masks.generate import Batch
from opom_jax.networks.recognizer import Recognizer


class Baseline(Protocol):
    """What every baseline is."""

    def __call__(
        self,
        network: Recognizer,
        settings: Settings,
        people: Batch,
        size: int,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Made:
        """Masks of people from one surrogate.

        Args:
          network: the surrogate.
          settings: of this method.
          people: all of them, on the host.
          size: most people on the device at once; does not change the masks.
          folder: where an interrupted run goes on, of a method that can.
          progress: called with the rounds done (steps, epochs, people) and their total.

        Raises:
          InputError: settings out of range, a folder of another run or without room.
        """
        ...


BASELINES: dict[str, Baseline] = {"fi_uap_all": fi_uap_all, "gd_uap": gd_uap, "gap": gap}
UNIVERSAL = ("fi_uap_all", "gap")  # one mask for everybody
