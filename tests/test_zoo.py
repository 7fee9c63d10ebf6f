"""The networks of the package: small, retrainable by their config, and good enough to study."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from opom_jax import laboratory
from opom_jax.networks import recognizer
from opom_jax.training.settings import Settings

PEOPLE, PHOTOS = 100, 6
ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted([*laboratory.SURROGATES.values(), *laboratory.TARGETS.values()])


def config(name: str):
    """The config that retrains a network."""
    spec = importlib.util.spec_from_file_location("zoo", ROOT / "configs" / "zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name.removeprefix("zoo:"))


def test_studies_use_all_of_them():
    assert [f"zoo:{card.parent.name}" for card in sorted(recognizer.ZOO.glob("*/*.json"))] == NAMES


def test_all_together_are_small():
    assert sum(p.stat().st_size for p in recognizer.ZOO.rglob("*") if p.is_file()) <= 12e6


@pytest.mark.parametrize("name", NAMES)
def test_card_says_how_it_was_trained(name):
    card = json.loads((recognizer.ZOO / name.removeprefix("zoo:") / "card.json").read_text())
    wanted = config(name)
    given = {field: wanted[field] for field in Settings.__dataclass_fields__}
    assert card["source"]["trained"] == given
    synthetic = wanted.data.synthetic
    assert card["source"]["data"]["synthetic"] == {
        key: synthetic[key] for key in ("first", "people", "photos", "seed")
    }
    assert synthetic.first >= laboratory.FIRST_KNOWN


def test_no_two_were_trained_on_the_same_people():
    used = [config(name).data.synthetic for name in NAMES]
    spans = sorted((u.first, u.first + u.people + u.held_out) for u in used)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


@pytest.fixture(scope="module")
def photos() -> laboratory.Photos:
    return laboratory.synthetic_photos(PEOPLE, 1, PHOTOS, distractors=2000, first=50_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_finds_unseen_people_among_2000_others(name, photos, tmp_path):
    network = recognizer.load(name)
    clean = laboratory.clean_features(network, photos, tmp_path)
    (found,) = laboratory.identify(network, photos, clean, [])
    assert found.protection()[0] <= 3.0
    people = clean.probes.reshape(PEOPLE, PHOTOS, -1)
    similar = np.einsum("pid,qjd->pqij", people, people)
    own = similar[np.arange(PEOPLE), np.arange(PEOPLE)][:, *np.triu_indices(PHOTOS, 1)].mean()
    others = similar[~np.eye(PEOPLE, dtype=bool)].mean()
    assert 0.5 <= own <= 0.75 and abs(others) < 0.05
