"""People in folders whose photos are one colour each, and a tiny world that studies share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opom_jax.laboratory import Photos
from opom_jax.tables.options import Options
from opom_jax.tables.study import Study
from opom_jax.tables.worlds import World
from tests.tiny import SIZE, Tapped, random_network

TRAIN, OTHERS = 3, 24
COUNTS = (3, 2, 3, 2, 2)  # probes of each person


@pytest.fixture
def draw() -> Callable[[Path, int], Path]:
    """draw(path, shade) makes a grey photo of 112 x 112 and gives back its path."""

    def photo(path: Path, shade: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (112, 112), (shade, shade, shade)).save(path)
        return path

    return photo


@pytest.fixture(scope="session")
def tiny() -> World:
    """Surrogates A and B; targets A, C and D, of which the first is A's white box."""
    with pytest.MonkeyPatch.context() as patch:
        a, b, c, d = (random_network(patch, Tapped, seed) for seed in range(4))
    draw, people = np.random.default_rng(9), len(COUNTS)

    def pictures(faces: np.ndarray, photos: int) -> np.ndarray:
        """u8[P,photos,H,W,C], near enough to the face and one another for masks to matter."""
        shown = faces[:, None] + draw.normal(0, 12, (len(faces), photos, *faces.shape[1:]))
        return np.clip(shown, 0, 255).astype(np.uint8)

    faces = draw.normal(128, 16, (people + OTHERS, SIZE, SIZE, 3))
    own, others = pictures(faces[:people], TRAIN + max(COUNTS)), pictures(faces[people:], 1)
    probes = [mine[TRAIN : TRAIN + n] for mine, n in zip(own, COUNTS, strict=True)]
    photos = Photos(own[:, :TRAIN], np.concatenate(probes), COUNTS, others[:, 0])
    return World("tiny", photos, {"A": a, "B": b}, {"A": a, "C": c, "D": d})


@pytest.fixture(scope="session")
def study(tiny, tmp_path_factory) -> Study:
    """Of the tiny world; what one test has made the next one reads."""
    return Study(tiny, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def options() -> Options:
    return Options(("A", "B"), iterations=2, epochs=1, steps=2, counts=(1, 2))
