"""Figures 2, 4 and 8: what masks generalise to, similarities of pairs, films."""

import numpy as np

from opom_jax.evaluation.verification import RATES, threshold_at, verification
from opom_jax.laboratory import METHODS
from opom_jax.masks.generate import Settings
from opom_jax.tables.options import Options
from opom_jax.tables.protection import NOISE, NONE, own, star
from opom_jax.tables.rates import protection
from opom_jax.tables.sheet import Sheet, bars
from opom_jax.tables.study import Masks, Study
from opom_jax.tables.video import possible, similarities


def figure_2(study: Study, options: Options) -> Sheet:
    """Universality (the surrogate looks at other photos of the person) against transferability
    (other networks look at the photos that the mask was made from)."""
    world, photos = study.world, study.world.photos
    seen = photos._replace(
        probes=photos.train.reshape(-1, *photos.train.shape[2:]),
        counts=(photos.train.shape[1],) * len(photos.train),
    )
    unseen = study.of(world._replace(targets=world.surrogates))
    elsewhere = study.of(world._replace(photos=seen))
    points: dict[str, list[tuple[float, float]]] = {}
    values = []
    for surrogate in options.surrogates:
        others = [name for name in world.targets if not study.is_white_box(surrogate, name)]
        for name in METHODS:
            masks = Masks(surrogate, own(name, options))
            across = protection(unseen.found(masks, surrogate))[0]
            transfer = np.mean([protection(elsewhere.found(masks, o))[0] for o in others])
            points.setdefault(name, []).append((float(across), float(transfer)))
            values.append([surrogate, name, across, transfer])

    def draw(figure) -> None:
        axes = figure.subplots()
        for name, of in points.items():
            axes.scatter(*zip(*of, strict=True), label=name)
            for surrogate, at in zip(options.surrogates, of, strict=True):
                axes.annotate(surrogate, at, fontsize=7)
        axes.set_xlabel("universality: the surrogate, other photos; Top-1 protection, %")
        axes.set_ylabel("transferability: other networks, the same photos; %")
        axes.legend(fontsize=8)

    head = ["Source", "Method", "universality", "transferability"]
    lines = [[a, b, f"{x:.1f}", f"{y:.1f}"] for a, b, x, y in values]
    note = "Mean Top-1 protection in percent; transferability is the mean over the black boxes."
    columns = ["surrogate", "method", "universality", "transferability"]
    return Sheet(f"Figure 2, {world.name}", head, lines, columns, values, [note], draw)


def figure_4(study: Study, options: Options) -> Sheet:
    """1:1 verification: similarity of a person's photos before and after one has a mask, and how
    many are still accepted where few strangers are."""
    sets: dict[tuple[str, str], Masks | None] = {("", NONE): None, ("", NOISE): Masks("", 0)}
    for surrogate in options.surrogates:
        name = "OPOM-ConvexHull"
        sets[surrogate, name] = Masks(surrogate, own(name, options))
    lines, values, groups = [], [], {}
    for (surrogate, name), masks in sets.items():
        cells = []
        for target in study.world.targets:
            same, others = study.pairs(masks, target)
            thresholds = threshold_at(study.pairs(None, target)[1])
            fares = verification(same, others, thresholds)
            tar = 100 * fares.tar
            values.append([surrogate, name, target, fares.genuine, same.std(), *tar, fares.auc])
            mark = star(study, surrogate, target)
            cells += [f"{same.mean():.3f}{mark}", f"{tar[0]:.1f}{mark}"]
            label = name if not surrogate else f"{name}, {surrogate}"
            groups.setdefault(target, {})[label] = (float(same.mean()), float(same.std()))
        lines.append([surrogate, name, *cells])
    heads = [f"{t} {what}" for t in study.world.targets for what in ("similarity", "TAR")]
    note = (
        "Mean cosine similarity of two photos of a person, one of them masked, and the share of "
        f"such pairs (percent) that reach a threshold which {RATES[0]:.1%} of the pairs of a clean "
        "photo and a distractor reach; the bars are ± one standard deviation over pairs. `*` is "
        "the surrogate itself."
    )
    columns = ["surrogate", "method", "target", "similarity", "deviation"]
    columns += [*(f"tar@{rate:g}" for rate in RATES), "auc"]

    def draw(figure) -> None:
        bars(figure, groups, "cosine similarity")

    title = f"Figure 4, {study.world.name}"
    return Sheet(title, ["Source", "Method", *heads], lines, columns, values, [note], draw)


def figure_8(study: Study, options: Options) -> Sheet:
    """Films (4.3.3): how near frames come to the prototype of their person, by the photos that
    the mask is made of; masks of the first surrogate."""
    world, films = study.world, options.films(study.world)
    surrogate, counts = options.surrogates[0], possible(films)
    targets = {t: n for t, n in world.targets.items() if not study.is_white_box(surrogate, t)}
    network = world.surrogates[surrogate]
    found = similarities(films, network, targets, Settings(), counts, study.memory_gib)
    shown = (0, *counts)
    values = [
        [target, photos, cosines.mean(), cosines.std(), len(cosines)]
        for target, of in found.items()
        for photos, cosines in zip(shown, of, strict=True)
    ]
    lines = [
        [target, *(f"{row.mean():.3f} ± {row.std():.3f}" for row in of)]
        for target, of in found.items()
    ]

    def draw(figure) -> None:
        axes = figure.subplots()
        for target, of in found.items():
            axes.errorbar(shown, of.mean(1), of.std(1), marker="o", capsize=2, label=target)
        axes.set_xlabel("photos that the mask is made of (0: no mask)")
        axes.set_ylabel("cosine similarity of frames with the prototype")
        axes.legend(fontsize=8)

    frames = sum(len(film.frames) for film in films)
    note = (
        f"{len(films)} films, {frames} frames, surrogate {surrogate}, OPOM-ConvexHull; ± is the "
        "standard deviation over frames."
    )
    columns = ["target", "photos", "similarity", "deviation", "frames"]
    head = ["Target", *(f"{k} photos" for k in shown)]
    return Sheet(f"Figure 8, {world.name}", head, lines, columns, values, [note], draw)
