"""One table of all networks: of the package, of public repositories, of the registry."""

import csv
import io
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from converters.catalogue import ORIGINS, PARAMETERS, PUBLIC, Origin, Public
from converters.convert import SCALINGS
from converters.rules import LAYOUTS
from opom_jax.networks import recognizer
from opom_jax.networks.registry import NETWORKS, Spec


class Row(NamedTuple):
    """A network in words.

    Attributes:
      name: `zoo:NAME`, or a name of `PUBLIC` or of the registry.
      family: the architecture.
      embedding: its length.
      parameters: learned numbers.
      input: height x width that the network sees.
      preprocessing: channels and scaling of pixels 0..255.
      source: who published the weights.
      licence: of the repository they lie in.
      get: how to have it: the command, or the file to bring.
      difference: the largest, of an embedding from the original's own code on the same weights, as
        a share of the largest number; "<" is the bound of a test, "" is not measured.
      rank_1: percent, of `Public`; "" is not measured.
      here: whether it can be used now, on this computer.
    """

    name: str
    family: str
    embedding: int
    parameters: int
    input: str
    preprocessing: str
    source: str
    licence: str
    get: str
    difference: str
    rank_1: str
    here: bool


def rows() -> list[Row]:
    """All networks: the zoo, then the public ones, then what needs a file or training."""
    there = recognizer.on_shelf(recognizer.fetched())
    rest = (name for name in NETWORKS if name not in PUBLIC)
    return [
        *_zoo(),
        *(_public(name, public, name in there) for name, public in PUBLIC.items()),
        *map(_registered, rest),
    ]


def _zoo() -> Iterator[Row]:
    for name in recognizer.on_shelf(recognizer.ZOO):
        network = recognizer.read_card(recognizer.ZOO / name)["network"]
        own = _registered(network)._replace(name=f"zoo:{name}", licence="MIT", here=True)
        yield own._replace(source="this package (synthetic people)", get="comes with the package")


def _public(name: str, public: Public, here: bool) -> Row:
    if name in NETWORKS:
        row = _registered(name)
    else:
        mean, scale = SCALINGS[public.scaling or "none"]
        spec = Spec(lambda _: None, public.embedding, "", mean=mean, scale=scale)  # pyright: ignore
        row = _row(name, spec, Origin(f"graph ({public.graph})", ""))
        if public.scaling is None:
            row = row._replace(preprocessing="RGB, scaled by the graph")
    return row._replace(
        source=public.repository,
        licence=public.licence,
        get=f"models fetch {name}",
        difference=public.difference,
        rank_1=f"{public.rank_1:.2f}",
        here=here,
    )


def _registered(name: str) -> Row:
    """A network of the registry."""
    for pattern, origin in ORIGINS:
        if found := re.fullmatch(pattern, name):
            file = found.expand(origin.file)
            return _row(name, NETWORKS[name], origin._replace(file=file))
    raise KeyError(f"{name} has no line in converters/catalogue.py's ORIGINS")


def _row(name: str, spec: Spec, origin: Origin) -> Row:
    top, bottom, left, right = spec.crop or (0, spec.size, 0, spec.size)
    readable = spec.layout in LAYOUTS and origin.file
    return Row(
        name,
        origin.family,
        spec.embedding,
        PARAMETERS[name],
        f"{bottom - top}x{right - left}",
        f"{spec.channels}, {scaling(spec)}",
        origin.source,
        origin.licence,
        f"{origin.file} (convert --network={name})"
        if readable
        else f"train --config.network={name}",
        origin.difference,
        "",
        False,
    )


def scaling(spec: Spec) -> str:
    """The scaling of pixels in words: a name of `SCALINGS` or the formula."""
    own = np.array([spec.mean, spec.scale])
    for name, known in SCALINGS.items():
        if np.allclose(own, known, rtol=1e-6):
            return name
    return f"(x-{spec.mean[0]:g})/{1 / spec.scale[0]:g}"


def text(table: Sequence[Row]) -> str:
    """Two lines a network, for a terminal of 80 columns."""
    lines = []
    for row in table:
        here = "  (here)" if row.here else ""
        size = f"{row.embedding:4} {row.parameters / 1e6:6.1f} M  {row.input:8}"
        lines.append(f"{row.name:27} {row.family:20} {size}{here}".rstrip())
        said = filter(None, (row.get, row.source, row.licence and f"licence: {row.licence}"))
        lines += textwrap.wrap("; ".join(said), 80, initial_indent="  ", subsequent_indent="  ")
    head = f"{'name':27} {'family':20} embedding, weights, input"
    return "\n".join([head, *lines])


PAGE = """# Networks

Every network that the package knows, as `python run.py models list --format=markdown` prints it.
"Difference" is the largest difference of an embedding from what the original's own code gives with
the same weights, as a share of the largest number (`<`: the bound of a test, with random weights).
"Rank-1" is of 96 people of LFW among 4,000 others, one photo of each in the gallery, single crops.
Photos are RGB, 0..255, aligned to 112x112; a network crops, resizes and scales them itself.

A licence is that of the repository that the weights lie in; photos that networks were trained on
have terms of their own, mostly for research alone.
"""
_COLUMNS = {
    "name": "name",
    "family": "family",
    "embedding": "embedding",
    "parameters": "weights",
    "input": "input",
    "preprocessing": "preprocessing",
    "source": "source",
    "licence": "licence",
    "get": "how to have it",
    "difference": "difference",
    "rank_1": "rank-1, %",
}


def markdown(table: Sequence[Row]) -> str:
    """The page docs/networks.md; the same on every computer."""
    head = f"| {' | '.join(_COLUMNS.values())} |\n|{'---|' * len(_COLUMNS)}"
    lines = []
    for row in table:
        cells = row._asdict() | {"name": f"`{row.name}`", "parameters": f"{row.parameters:,}"}
        lines.append(f"| {' | '.join(str(cells[column]) or '–' for column in _COLUMNS)} |")
    return "\n".join([PAGE, head, *lines])


def as_csv(table: Sequence[Row]) -> str:
    """A line a network, all of `Row`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(table)
    return file.getvalue().rstrip()


def as_json(table: Sequence[Row]) -> str:
    """A list of objects, all of `Row`."""
    return json.dumps([row._asdict() for row in table], indent=1, ensure_ascii=False)


FORMATS = {"text": text, "markdown": markdown, "csv": as_csv, "json": as_json}
