"""Table 6: several masks a person, against clean galleries and against masked ones."""

import numpy as np

from opom_jax.masks.generate import Settings
from opom_jax.tables import published
from opom_jax.tables.options import Options
from opom_jax.tables.protection import common_note, number, star
from opom_jax.tables.rates import protection, rates, spread
from opom_jax.tables.sheet import Sheet, bars
from opom_jax.tables.study import Masks, Study

MEASURES = ("M-O", "M-M")  # masked probes against clean and against masked gallery photos
COLUMNS = ("surrogate", "masks", "target", "measure", "mask", "top1")


def table_6(study: Study, options: Options) -> Sheet:
    """Diverse masks (4.3.4)."""
    targets = list(study.world.targets)
    lines, values, groups = [], [], {}
    for surrogate in options.surrogates:
        counted = [not study.is_white_box(surrogate, target) for target in targets]
        for count in options.counts:
            found, name = _found(study, surrogate, count), f"n_M={count}"
            papers = [published.mean(6, surrogate, name, m.lower()) for m in MEASURES]
            top, both = protection(found)[..., 0], [rates(of, counted) for of in found]
            cells = [
                f"{masks.mean():.1f}{_over_masks(spread(masks))}{star(study, surrogate, target)}"
                for t, target in enumerate(targets)
                for masks in top[:, :, t]
            ]
            means = [f"{of.mean[0]:.1f} ± {of.error:.1f}{_over_masks(of.spread)}" for of in both]
            lines.append([surrogate, name, *cells, *means, *map(number, papers)])
            values += [
                [surrogate, count, target, measure, m, top[g, m, t]]
                for t, target in enumerate(targets)
                for g, measure in enumerate(MEASURES)
                for m in range(count)
            ]
            groups[f"{surrogate}\n{name}"] = {
                measure: (float(of.mean[0]), of.error)
                for measure, of in zip(MEASURES, both, strict=True)
            }
    heads = [f"{name} {measure}" for name in [*targets, "Mean", "paper"] for measure in MEASURES]
    notes = [
        common_note(study),
        "Top-1; in square brackets the standard deviation over the masks of a person. M-M: the "
        "gallery photo has the next mask (the same one where there is but one).",
    ]
    title = f"Table 6, {study.world.name}: diverse masks"

    def draw(figure) -> None:
        bars(figure, groups, "mean Top-1 protection, %")

    return Sheet(title, ["Source", "n_M", *heads], lines, COLUMNS, values, notes, draw)


def _found(study: Study, surrogate: str, count: int) -> np.ndarray:
    """i64[2,masks,targets,P,4]."""
    masks = Masks(surrogate, Settings(), diverse=count)
    found = [study.found_among_masked(masks, target) for target in study.world.targets]
    return np.stack(found, 2)


def _over_masks(deviation: float) -> str:
    return f" [{deviation:.1f}]" if deviation > 0 else ""  # NaN of one mask
