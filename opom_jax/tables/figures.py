"""Figures 2, 4 and 6: what masks generalise to, similarities, effect against time."""

from collections.abc import Callable
from time import perf_counter

import numpy as np

from opom_jax import laboratory
from opom_jax.baselines import specific
from opom_jax.evaluation.verification import RATES, area, roc, tar_at
from opom_jax.laboratory import IMAGE_SPECIFIC, METHODS
from opom_jax.masks.apply import apply_mask
from opom_jax.tables.options import Options
from opom_jax.tables.protection import NOISE, NONE, own, row
from opom_jax.tables.rates import protection
from opom_jax.tables.sheet import Sheet, bars
from opom_jax.tables.study import Masks, Study

NEW = 100  # photos that are timed
UNIVERSAL = ("GD-UAP", "GAP", "FI-UAP-all")  # the paper's groups of Fig. 6
PERSON_SPECIFIC = ("FI-UAP", "OPOM-AffineHull", "OPOM-ConvexHull")


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
            curve = roc(same, others)
            tar = 100 * tar_at(curve)
            values.append([surrogate, name, target, same.mean(), same.std(), *tar, area(curve)])
            cells += [f"{same.mean():.3f}", f"{tar[0]:.1f}"]
            label = name if not surrogate else f"{name}, {surrogate}"
            groups.setdefault(target, {})[label] = (float(same.mean()), float(same.std()))
        lines.append([surrogate, name, *cells])
    heads = [f"{t} {what}" for t in study.world.targets for what in ("similarity", "TAR")]
    note = (
        "Mean cosine similarity of two photos of a person, one of them masked, and the share of "
        f"such pairs (percent) that pass where {RATES[0]:.1%} of the pairs with a distractor do; "
        "the bars are ± one standard deviation over pairs."
    )
    columns = ["surrogate", "method", "target", "similarity", "deviation"]
    columns += [*(f"tar@{rate:g}" for rate in RATES), "auc"]

    def draw(figure) -> None:
        bars(figure, groups, "cosine similarity")

    title = f"Figure 4, {study.world.name}"
    return Sheet(title, ["Source", "Method", *heads], lines, columns, values, [note], draw)


def figure_6(study: Study, options: Options) -> Sheet:
    """Mean Top-1 protection against the seconds until new photos are masked, for masks of the
    first surrogate. Masks for everybody or a person are only added."""
    surrogate, values = options.surrogates[0], []
    new = study.world.photos.probes[:NEW]
    adding = _seconds(lambda: apply_mask(new, laboratory.random_masks(1, new.shape[1])[0]))
    kinds = {"universal": UNIVERSAL, "person-specific": PERSON_SPECIFIC}
    for kind, names in kinds.items():
        for name in names:
            of = row(study, [Masks(surrogate, own(name, options))]).rates
            values.append([kind, name, of.mean[0], of.error, adding])
    network = study.world.surrogates[surrogate]
    for name, attack in IMAGE_SPECIFIC.items():
        of = row(study, [Masks(surrogate, attack)]).rates
        seconds = _seconds(
            lambda attack=attack: specific.image_masks([network], specific.METHODS[attack], new)
        )
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
        f"Surrogate {surrogate}; {laboratory.device()}; median of three, compiled before. LowKey: "
        "1 - SSIM stands in for LPIPS, which needs a network trained on ImageNet."
    ]
    head = ["Kind", "Method", "mean Top-1, %", f"s for {len(new)} new photos"]
    columns = ["kind", "method", "mean_top1", "error", "seconds"]
    return Sheet(f"Figure 6, {study.world.name}", head, lines, columns, values, notes, draw)


def _seconds(program: Callable[[], object], rounds: int = 3) -> float:
    """Median wall time after a first call that compiles."""
    program()
    taken = []
    for _ in range(rounds):
        start = perf_counter()
        program()
        taken.append(perf_counter() - start)
    return float(np.median(taken))
