"""What `generate` left in a folder besides the masks: read back, and checked."""

import json
from collections.abc import Sequence
from pathlib import Path

from opom_jax.errors import InputError
from opom_jax.files import read_config
from opom_jax.networks.recognizer import Recognizer


def made_from(workdir: Path) -> dict[int, tuple[str, int]]:
    """Number -> (name, photos), as generate recorded them; none for masks from elsewhere."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return {}
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        return {entry["id"]: (entry["name"], entry["photos"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; run the same generate command again.") from error


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


def white_box(workdir: Path, targets: Sequence[Recognizer]) -> list[str]:
    """Names of the targets that made the masks themselves."""
    surrogate = run_of(workdir).get("surrogate")
    digest = surrogate.get("weights_sha256") if isinstance(surrogate, dict) else None
    return [target.name for target in targets if target.digest == digest]
