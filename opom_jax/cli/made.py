"""What `generate` left in a folder besides the masks: read back, and checked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opom_jax.cli.config import Config, load_surrogates
from opom_jax.errors import InputError
from opom_jax.evaluation.features import extractor, same_network
from opom_jax.files import read_config
from opom_jax.masks.store import journals
from opom_jax.networks.recognizer import Recognizer


class MadeOf(NamedTuple):
    """Of what a person's mask was made: the person's name, the number of photos and their SHA-256
    as `images.inspect_each` has it ("" if the journal does not say)."""

    name: str
    photos: int
    digest: str


def made_from(workdir: Path) -> dict[int, MadeOf]:
    """By the number of the person, as generate recorded it; none for masks from elsewhere."""
    made = {}
    for path in journals(workdir):
        try:
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                digest = entry.get("photos_sha256", "")
                made[entry["id"]] = MadeOf(entry["name"], entry["photos"], digest)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged; run the same generate command again, in one process."
            ) from error
    return made


def run_of(workdir: Path) -> dict:
    """The configuration of generate; empty for masks from elsewhere."""
    path = workdir / "config.json"
    try:
        return read_config(workdir) if path.exists() else {}
    except InputError as error:
        raise InputError(
            f"{path} cannot be read; make the masks again in another --workdir, or remove it, and "
            "they count as masks from elsewhere."
        ) from error


def diverse_of(workdir: Path) -> int:
    """How many diverse masks generate made for each person; 0 for the ordinary one."""
    count = run_of(workdir).get("diverse", 0)
    if not isinstance(count, int) or not 0 <= count <= 100:
        raise InputError(f"{workdir / 'config.json'} has diverse={count!r}; make the masks again.")
    return count


def surrogates_of(workdir: Path, config: Config) -> tuple[Recognizer, ...]:
    """The networks of `config.surrogate`, none if it names none; InputError if generate recorded
    that others made the masks."""
    named, recorded = load_surrogates(config), _digests(workdir)
    if named and recorded and {network.digest for network in named} != recorded:
        raise InputError(
            f"config.surrogate={config.surrogate!r} is not what made the masks of "
            f"{workdir}; name that or leave it out."
        )
    return named


def white_box(
    workdir: Path,
    targets: Sequence[Recognizer],
    surrogates: Sequence[Recognizer],
    photos: Sequence[np.ndarray],
) -> list[str]:
    """Names of the targets that made the masks themselves: those with a digest that generate
    recorded and, if surrogates are known, those that see photos (batches as `extractor` takes
    them) as one of them does: its weights from another file have another digest."""
    digests = _digests(workdir)
    names = {target.name for target in targets if target.digest in digests}
    for surrogate in surrogates:
        seen = extractor(surrogate)(photos)
        names |= {t.name for t in targets if same_network(extractor(t)(photos), seen)}
    return [target.name for target in targets if target.name in names]


def _digests(workdir: Path) -> set[str]:
    run = run_of(workdir)
    team = run.get("surrogates")
    each = team if isinstance(team, list) else [run.get("surrogate")]
    found = [one.get("weights_sha256") for one in each if isinstance(one, dict)]
    return {digest for digest in found if isinstance(digest, str)}
