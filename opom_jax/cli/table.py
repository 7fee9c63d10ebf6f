"""table --table=2|3|4|5|6 or --figure=2|4|6|7|8 [--on=zoo|real|paper] [--workdir=FOLDER]

Makes one of the paper's tables or figures: the masks, the ranks, the table beside the published
numbers, a CSV and a plot (WORKDIR/zoo/table2.md, .csv, .png). What is there already is not made
again, so an interrupted run goes on and Table 4 reads what Table 2 has made; but masks of films
(Figures 7 and 8) are made anew.

--on=zoo: synthetic people and the networks of the package. --on=real: the faces and recognisers of
--data (or OPOM_REAL_DATA). --on=paper: the authors' data sets and networks, below --data; a figure
is of the commons or, with --dataset=celebrities, of these (figure2_celebrities.md).
"""

import math
import os
import sys
from pathlib import Path

from absl import flags as absl_flags

from converters.convert import convert, convert_graph
from opom_jax import tables
from opom_jax.cli import refuse
from opom_jax.cli.config import use_precision, workdir
from opom_jax.cli.progress import Progress
from opom_jax.data import people
from opom_jax.errors import InputError
from opom_jax.files import content_sha256, held
from opom_jax.laboratory import SURROGATES
from opom_jax.tables import films, paper, sheet, worlds
from opom_jax.tables.options import Options
from opom_jax.tables.study import Study, make_room

RESUMES = True
ZOO_PEOPLE = 100
TRAIN = 10  # photos of a person that make the mask
# --on=real: name -> (file below weights/, network of the registry; "" for a graph)
_SMALL = "mobilefacenet_lh_fpga_small"
REAL = {
    "xiaoccer": ("mobilefacenet_xiaoccer/068.ckpt", "mobilefacenet_xiaoccer"),
    "bubbliiiing": (
        "mobilefacenet_bubbliiiing/arcface_mobilefacenet.pth",
        "mobilefacenet_bubbliiiing",
    ),
    "foamliu": ("mobilefacenet_foamliu/mobile_face.pth", "mobilefacenet_foamliu"),
    "insightface_y1": ("mobilefacenet_insightface_y1_mxnet/model-0000.params", ""),
    "lh377k": (f"{_SMALL}/original377k_20260222_135854_051.ckpt", "mobilefacenet_lh377k"),
}
# Flags -> the tables and figures that read them; for the others they mean nothing.
READ_BY = {
    ("seeds",): ("table2", "table3", "table4", "table5"),
    ("iterations", "epochs"): ("table2", "table3", "figure6"),
    ("steps", "momentum", "dropout"): ("table4", "table5"),
    ("films",): ("figure7", "figure8"),
}
FACES, OTHERS = Path("faces_112", "lfw"), Path("faces_112", "lfw_distractors")
REAL_SURROGATES = ("xiaoccer", "bubbliiiing", "foamliu")


def define(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Defines and parses the verb's flags; returns the arguments that are none."""
    integer, string = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
    for name, known in (("table", tables.TABLES), ("figure", tables.FIGURES)):
        absl_flags.DEFINE_enum(
            name, None, [str(k) for k in known], "Of the paper.", flag_values=flags
        )
    absl_flags.DEFINE_enum(
        "on", "zoo", ["zoo", "real", "paper"], "Whose faces and networks.", flag_values=flags
    )
    string("data", "", "Folder of the real or the authors' data.", flag_values=flags)
    absl_flags.DEFINE_enum(
        "dataset", "commons", list(paper.DATASETS), "Of a figure --on=paper.", flag_values=flags
    )
    string(
        "films",
        "",
        "Of Figures 7 and 8: a folder with a folder a film, in it prototype/, web/ and frames/.",
        flag_values=flags,
    )
    string("workdir", "opom-tables", "Folder for masks, ranks and tables.", flag_values=flags)
    integer("people", 0, "The first so many; 0 for all.", 0, 90_000, flag_values=flags)
    absl_flags.DEFINE_list("surrogates", [], "Their names; empty for all.", flag_values=flags)
    integer("seeds", 1, "Random starts of FI-UAP, FI-UAP+ and OPOM.", 1, 100, flag_values=flags)
    integer("iterations", 10_000, "Most steps of GD-UAP.", 1, 1_000_000, flag_values=flags)
    integer("epochs", 10, "Of GAP.", 1, 100_000, flag_values=flags)
    integer("steps", 100, "With momentum and DFANet.", 1, 100_000, flag_values=flags)
    real = absl_flags.DEFINE_float
    real("momentum", 1.0, "Decay in Tables 4 and 5.", 0.0, 1.0, flag_values=flags)
    real("dropout", 0.1, "Of DFANet in Tables 4 and 5.", 0.0, 0.99, flag_values=flags)
    memory = "For a batch; 0: 2 on CPU, else 60 % of what is free."
    real("memory_gib", 0.0, memory, 0.0, flag_values=flags)
    return flags(argv)[1:]


def run(flags: absl_flags.FlagValues) -> None:
    """Makes the table and prints it."""
    kind, number = _chosen(flags)
    for names, readers in READ_BY.items():
        if f"{kind}{number}" not in readers:
            refuse(flags, names, f"--{kind}={number}")
    if flags.films:
        refuse(flags, ("people",), "--films")
    if kind == "table" or flags.on != "paper":
        refuse(flags, ("dataset",), f"--{kind}={number} --on={flags.on}")
    for name in ("memory_gib", "momentum", "dropout"):
        value: float = flags[name].value  # pyright: ignore
        if not math.isfinite(value):
            raise InputError(f"--{name}={value} must be finite.")
    options = _options(flags)
    dataset, name = flags.dataset, f"{kind}{number}"
    if kind == "table":
        dataset = paper.OF_TABLE[number]
    elif dataset == "celebrities":
        name += "_celebrities"
    _check_data(flags, dataset)
    if flags.films:
        given = films.in_folder(flags.films)
        options = options._replace(films=lambda world: given)
    folder = workdir(flags) / flags.on
    use_precision("float32")
    with held(folder):
        make_room(folder)
        world = _world(flags, dataset, folder)
        study = Study(world, folder, _say, flags.memory_gib)
        made = (tables.TABLES if kind == "table" else tables.FIGURES)[number](study, options)
        sheet.write(made, folder, name)
    print(sheet.markdown(made))
    print(f"{folder / name}.md, .csv, .png")


def _chosen(flags: absl_flags.FlagValues) -> tuple[str, int]:
    given = {kind: flags[kind].value for kind in ("table", "figure")}
    chosen = [(kind, int(number)) for kind, number in given.items() if number]
    if len(chosen) != 1:
        raise InputError("Name one --table or one --figure; see --help.")
    kind, number = chosen[0]
    if kind == "table" and number in (3, 5) and flags.on != "paper":
        raise InputError(
            f"Table {number} is Table {number - 1} on the authors' celebrities; give "
            f"--table={number - 1}, or --on=paper."
        )
    return kind, number


def _options(flags: absl_flags.FlagValues) -> Options:
    return Options(
        _surrogates(flags),
        seeds=flags.seeds,
        iterations=flags.iterations,
        epochs=flags.epochs,
        steps=flags.steps,
        momentum=flags.momentum,
        dropout=flags.dropout,
    )


def _surrogates(flags: absl_flags.FlagValues) -> tuple[str, ...]:
    known = REAL_SURROGATES if flags.on == "real" else tuple(SURROGATES)
    for name in flags.surrogates:
        if name not in known:
            raise InputError(f"--surrogates={name} must be some of {', '.join(known)}.")
        if flags.surrogates.count(name) > 1:
            raise InputError(f"--surrogates has {name} twice; name it once.")
    return tuple(flags.surrogates) or known


def _check_data(flags: absl_flags.FlagValues, dataset: str) -> None:
    """Refuses data that is not there, or not asked for, before anything is made."""
    if flags.on == "zoo" and flags.data:
        raise InputError(f"--data={flags.data} is of --on=real and --on=paper; leave it out.")
    if flags.on == "paper":
        paper.check(flags.data or "data", dataset)
    if flags.on != "real":
        return
    if not _real_data(flags):
        raise InputError("Name the folder of the real data with --data or OPOM_REAL_DATA.")
    for part in (FACES, OTHERS, *(Path("weights", file) for file, _ in REAL.values())):
        if not (path := Path(_real_data(flags), part)).exists():
            raise InputError(
                f"{str(path)!r} is missing; name the folder of the real data with --data or "
                "OPOM_REAL_DATA."
            )


def _real_data(flags: absl_flags.FlagValues) -> str:
    return flags.data or os.environ.get("OPOM_REAL_DATA", "")


def _world(flags: absl_flags.FlagValues, dataset: str, folder: Path) -> worlds.World:
    count = 1 if flags.films else flags.people  # films have people of their own
    if flags.on == "zoo":
        return worlds.zoo(count or ZOO_PEOPLE, Progress("drawing people", "photos"))
    if flags.on == "real":
        return real_world(Path(_real_data(flags)), folder, count)
    return paper.world(flags.data or "data", dataset, count)


def real_world(data: Path, folder: Path, limit: int) -> worlds.World:
    """The faces of a folder and its recognisers, converted into another if they are not yet: each
    under a name that has the digest of its file."""
    nets = {}
    for name, (file, network) in REAL.items():
        weights = data / "weights" / file
        out = folder / "nets" / f"{name}-{content_sha256(weights)[:12]}"
        nets[name] = str(out)
        if out.exists():
            continue
        if network:
            convert(weights, network, out)
        else:
            symbol = weights.with_name(weights.name.replace("-0000.params", "-symbol.json"))
            convert_graph(weights, out, symbol=symbol)
    persons = people.from_folder(data / FACES, TRAIN, limit)
    others = people.flat_images(data / OTHERS)
    surrogates = {name: nets[name] for name in REAL_SURROGATES}
    return worlds.on_disk("real", persons, others, surrogates, nets)


def _say(what: str) -> None:
    """One line of progress."""
    print(what, file=sys.stderr, flush=True)
