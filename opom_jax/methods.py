"""Every method by one name: whom its masks are for, its settings, and what makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from opom_jax.baselines import gd_uap, specific
from opom_jax.baselines import settings as baselines
from opom_jax.baselines.fi_uap_all import fi_uap_all
from opom_jax.baselines.gap import gap
from opom_jax.masks import generate as masks
from opom_jax.masks.batches import Batch, Made, Progress
from opom_jax.networks.recognizer import Recognizer


class Maker(Protocol):
    """What makes masks that serve more than one photo."""

    def __call__(
        self,
        network: Recognizer,
        settings,
        people: Batch,
        size: int,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> Made:
        """Masks of people from one surrogate.

        Args:
          network: the surrogate.
          settings: of this method, of the kind that the table names.
          people: all of them, on the host.
          size: most people on a device at once; changes at most how masks are rounded.
          folder: where an interrupted run goes on, of a method that can.
          progress: called with the rounds done (steps, epochs, people) and their total.

        Raises:
          InputError: settings out of range, a folder of another run or without room.
        """
        ...


class Method(NamedTuple):
    """A line of the table.

    Attributes:
      title: in tables.
      serves: "person", "everybody" or "photo": what one mask is for.
      settings: their kind.
      make: a `Maker`; of photos, the networks, the attack and the photos (`specific.image_masks`).
      reads: the settings besides epsilon and seed that it has; `initial_steps`, `lower` and `upper`
        of the convex hull are not told apart, as one file of `configs/` serves all methods.
      check: (network, settings) raises InputError for a network that the method cannot use;
        nothing is computed.
    """

    title: str
    serves: str
    settings: type
    make: Callable
    reads: tuple[str, ...]
    check: Callable[[Recognizer, Any], None] = masks.check_network


_STEPS = ("step_size", "steps", "form", "start")
_GAP = ("form", "epochs", "photos_per_step", "learning_rate", "width", "blocks")


def _opom(title: str) -> Method:
    return Method(title, "person", masks.Settings, masks.make, (*_STEPS, "momentum", "dropout"))


def _photo(title: str) -> Method:
    return Method(title, "photo", specific.Attack, specific.image_masks, ())


METHODS = {
    "fi_uap": _opom("FI-UAP"),
    "fi_uap_plus": _opom("FI-UAP+"),
    "affine_hull": _opom("OPOM-AffineHull"),
    "class_center": _opom("OPOM-ClassCenter"),
    "convex_hull": _opom("OPOM-ConvexHull"),
    "gd_uap": Method(
        "GD-UAP",
        "person",
        baselines.Settings,
        gd_uap.gd_uap,
        ("start", "iterations"),
        gd_uap.check_network,
    ),
    "gap": Method("GAP", "everybody", baselines.Settings, gap, _GAP),
    "fi_uap_all": Method("FI-UAP-all", "everybody", baselines.Settings, fi_uap_all, _STEPS),
    "fim": _photo("FIM"),
    "m_di2_apf": _photo("M-DI2-APF"),
    "lowkey": _photo("LowKey"),
}


def titles(settings: type) -> dict[str, str]:
    """{title: name} of the methods with this kind of settings."""
    return {of.title: name for name, of in METHODS.items() if of.settings is settings}
