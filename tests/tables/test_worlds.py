"""People in folders as arrays: in order, whatever the number of their probes."""

import numpy as np
import pytest

from opom_jax.data.people import Person
from opom_jax.errors import InputError
from opom_jax.evaluation.features import BATCH
from opom_jax.tables import worlds

NO_NETWORKS: tuple[dict[str, str], dict[str, str]] = {}, {}


@pytest.fixture
def photos(draw, tmp_path):
    """photos(name, shade, ...) draws photos of a person."""
    return lambda name, *shades: tuple(draw(tmp_path / name / f"{k}.png", k) for k in shades)


def shades(pictures: np.ndarray) -> list:
    return pictures[..., 5, 7, 0].tolist()


def test_people_keep_their_numbers_of_probes(photos):
    persons = [
        Person("a", photos("a", 1, 2), photos("a", 3, 4, 5)),
        Person("b", photos("b", 11, 12), photos("b", 13, 14)),
    ]
    world = worlds.on_disk("own", persons, photos("others", 21, 22, 23), *NO_NETWORKS)
    assert (world.name, world.surrogates, world.targets) == ("own", *NO_NETWORKS)
    assert world.photos.counts == (3, 2)
    assert world.photos.train.shape == (2, 2, 112, 112, 3) and world.photos.train.dtype == np.uint8
    assert shades(world.photos.train) == [[1, 2], [11, 12]]
    assert shades(world.photos.probes) == [3, 4, 5, 13, 14]
    assert shades(world.photos.distractors) == [21, 22, 23]


def test_more_photos_than_are_decoded_together(photos):
    person = Person("a", photos("a", 0), photos("a", *range(1, BATCH + 3)))
    world = worlds.on_disk("own", [person], photos("others", 7), *NO_NETWORKS)
    assert shades(world.photos.probes) == list(range(1, BATCH + 3))


@pytest.mark.parametrize(
    "train, probes, said",
    [
        ((11,), (13, 14), "b has 1 training and 2 test photos, needs 2 and 2 or more"),
        ((11, 12), (13,), "b has 2 training and 1 test photos, needs 2 and 2 or more"),
        ((11, 12), (), "b has 2 training and 0 test photos, needs 2 and 2 or more"),
    ],
)
def test_people_with_too_few_photos(photos, train, probes, said):
    persons = [
        Person("a", photos("a", 1, 2), photos("a", 3, 4)),
        Person("b", photos("b", *train), photos("b", *probes)),
    ]
    with pytest.raises(InputError, match=said):
        worlds.on_disk("own", persons, photos("others", 21), *NO_NETWORKS)


def test_photos_of_another_size_and_no_network(photos, tmp_path):
    person = Person("a", photos("a", 1), photos("a", 2, 3))
    with pytest.raises(InputError, match="112 x 112 pixels, not 64 x 64"):
        worlds.on_disk("own", [person], photos("others", 4), *NO_NETWORKS, size=64)
    with pytest.raises(InputError, match="nowhere is no converted network"):
        nowhere = {"ArcFace": str(tmp_path / "nowhere")}
        worlds.on_disk("own", [person], photos("others", 4), {}, nowhere)
