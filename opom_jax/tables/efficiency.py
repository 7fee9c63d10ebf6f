"""Figure 6: protection against the time until new photos are masked."""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.laboratory import IMAGE_SPECIFIC
from opom_jax.masks.apply import apply_mask
from opom_jax.tables.options import Options
from opom_jax.tables.protection import caps, own
from opom_jax.tables.rates import Rates, rates
from opom_jax.tables.sheet import Sheet
from opom_jax.tables.study import Masks, Study

NEW = 100  # photos that are timed
ENSEMBLE = "lowkey"  # attacks all surrogates, as its paper does
KINDS = {  # the paper's
    "universal": ("GD-UAP", "GAP", "FI-UAP-all"),
    "person-specific": ("FI-UAP", "OPOM-AffineHull", "OPOM-ConvexHull"),
}


def figure_6(study: Study, options: Options) -> Sheet:
    """Mean Top-1 protection against the seconds until new photos are masked. Masks for everybody
    or a person are only added. LowKey attacks all surrogates together, the others the first."""
    surrogate, *others = options.surrogates
    new, values = study.world.photos.probes[:NEW], []
    (mask,) = laboratory.random_masks(1, new.shape[1])
    adding = _seconds(lambda: apply_mask(new, mask))
    for kind, names in KINDS.items():
        for name in names:
            of = _rates(study, options, Masks(surrogate, own(name, options)))
            values.append([kind, name, of.mean[0], of.error, adding])
    for name, attack in IMAGE_SPECIFIC.items():
        also = tuple(others) if attack == ENSEMBLE else ()
        of = _rates(study, options, Masks(surrogate, attack, also=also))
        networks = [study.world.surrogates[each] for each in (surrogate, *also)]
        method = specific.METHODS[attack]
        seconds = _seconds(partial(specific.image_masks, networks, method, new))
        values.append(["image-specific", name, of.mean[0], of.error, seconds])

    def draw(figure) -> None:
        axes = figure.subplots()
        for k, kind in enumerate(dict.fromkeys(line[0] for line in values)):
            chosen = [line for line in values if line[0] == kind]
            heights, errors, times = ([line[i] for line in chosen] for i in (2, 3, 4))
            axes.errorbar(times, heights, errors, fmt="o", label=kind, color=f"C{k}")
            for line in chosen:
                axes.annotate(line[1], (line[4], line[2]), fontsize=8)
        axes.set_xscale("log")
        axes.set_xlabel(f"seconds until {len(new)} new photos are masked")
        axes.set_ylabel("mean Top-1 protection, %")
        axes.legend()

    lines = [[k, n, f"{m:.1f} ± {e:.1f}", f"{s:.3g}"] for k, n, m, e, s in values]
    notes = [
        f"Surrogate {surrogate} (LowKey: all); {laboratory.device()}; median of three, compiled "
        "before. In LowKey 1 - SSIM stands in for LPIPS, which needs weights of ImageNet.",
        caps(options),
    ]
    head = ["Kind", "Method", "mean Top-1, %", f"s for {len(new)} new photos"]
    columns = ["kind", "method", "mean_top1", "error", "seconds"]
    return Sheet(f"Figure 6, {study.world.name}", head, lines, columns, values, notes, draw)


def _rates(study: Study, options: Options, masks: Masks) -> Rates:
    """The mean is over targets that are none of the surrogates, the same for all masks."""
    targets = list(study.world.targets)
    found = np.array([[study.found(masks, target) for target in targets]])
    known = [any(study.is_white_box(s, target) for s in options.surrogates) for target in targets]
    return rates(found, [not one for one in known])


def _seconds(program: Callable[[], object], rounds: int = 3) -> float:
    """Median wall time after a first call that compiles."""
    program()
    taken = []
    for _ in range(rounds):
        start = perf_counter()
        program()
        taken.append(perf_counter() - start)
    return float(np.median(taken))
