"""Table 6: several masks a person, against clean galleries and against masked ones."""

import numpy as np

from opom_jax.masks.generate import Settings
from opom_jax.tables import published
from opom_jax.tables.options import Options
from opom_jax.tables.protection import common_note, number, star
from opom_jax.tables.rates import protection
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
            top = _top_1(study, surrogate, count)
            mean, name = top[counted].mean(0), f"n_M={count}"
            papers = [published.mean(6, surrogate, name, m.lower()) for m in MEASURES]
            stars = [*(star(study, surrogate, target) for target in targets), ""]
            cells = [
                _shown(masks) + mark
                for of, mark in zip([*top, mean], stars, strict=True)
                for masks in of
            ]
            lines.append([surrogate, name, *cells, *map(number, papers)])
            values += [
                [surrogate, count, target, measure, m, rate]
                for target, of in zip(targets, top, strict=True)
                for measure, rates in zip(MEASURES, of, strict=True)
                for m, rate in enumerate(rates)
            ]
            groups[f"{surrogate}\n{name}"] = {
                measure: (float(rates.mean()), float(rates.std()))
                for measure, rates in zip(MEASURES, mean, strict=True)
            }
    heads = [f"{name} {measure}" for name in [*targets, "Mean", "paper"] for measure in MEASURES]
    notes = [
        common_note(study),
        "Top-1; here ± is the standard deviation over the masks of a person. M-M: the gallery "
        "photo has the next mask (the same one where there is but one).",
    ]
    title = f"Table 6, {study.world.name}: diverse masks"

    def draw(figure) -> None:
        bars(figure, groups, "mean Top-1 protection, %")

    return Sheet(title, ["Source", "n_M", *heads], lines, COLUMNS, values, notes, draw)


def _top_1(study: Study, surrogate: str, count: int) -> np.ndarray:
    """f64[targets,2,masks] in percent."""
    masks = Masks(surrogate, Settings(), diverse=count)
    found = [study.found_among_masked(masks, target) for target in study.world.targets]
    return protection(np.array(found))[..., 0]


def _shown(over_masks: np.ndarray) -> str:
    spread = f" ± {over_masks.std():.1f}" if len(over_masks) > 1 else ""
    return f"{over_masks.mean():.1f}{spread}"
