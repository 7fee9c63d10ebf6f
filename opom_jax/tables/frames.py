"""Figure 7: frames of a film as they are and under a mask, and how near they come to the person."""

import numpy as np

from opom_jax.masks.apply import apply_mask
from opom_jax.masks.generate import Settings
from opom_jax.tables.options import Options
from opom_jax.tables.sheet import Sheet
from opom_jax.tables.study import Study
from opom_jax.tables.video import cosines, masks_by_count, possible

SHOWN = 6  # frames, evenly spaced
COLUMNS = ("film", "frame", "target", "before", "after")


def figure_7(study: Study, options: Options) -> Sheet:
    """The first film (4.3.3), with the mask of the first surrogate of as many web photos as Figure
    8 uses at most; similarities are with the person's prototype, before and after."""
    film, surrogate = options.films(study.world)[0], options.surrogates[0]
    network, count = study.world.surrogates[surrogate], possible([film])[-1]
    (mask,) = masks_by_count(film, network, Settings(), (count,), memory_gib=study.memory_gib)
    both = np.stack([film.frames, apply_mask(film.frames, mask)])
    targets = [name for name in study.world.targets if not study.is_white_box(surrogate, name)]
    found = {name: cosines(study.world.targets[name], film.prototype, both) for name in targets}
    values = [
        [film.name, frame, name, before, after]
        for name, of in found.items()
        for frame, (before, after) in enumerate(of.T)
    ]
    shown = np.unique(np.linspace(0, len(film.frames) - 1, SHOWN).round().astype(int))
    means = np.mean([*found.values()], 0)
    lines = [[str(k), f"{means[0, k]:.3f}", f"{means[1, k]:.3f}"] for k in shown]

    def draw(figure) -> None:
        axes = figure.subplots(2, len(shown), squeeze=False)
        for row, frames, similar in zip(axes, both, means, strict=True):
            for spot, k in zip(row, shown, strict=True):
                spot.imshow(frames[k])
                spot.set_title(f"{similar[k]:.2f}", fontsize=8)
                spot.axis("off")

    notes = [
        f"{film.name}: {len(film.frames)} frames, of which {len(shown)} are shown; surrogate "
        f"{surrogate}, OPOM-ConvexHull of {count} photos; mean cosine similarity with the "
        f"prototype in the eyes of {', '.join(targets)}."
    ]
    head = ["Frame", "before", "after"]
    return Sheet(f"Figure 7, {study.world.name}", head, lines, COLUMNS, values, notes, draw)
