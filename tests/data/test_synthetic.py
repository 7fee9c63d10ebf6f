"""Synthetic people: the same whatever else is drawn, aligned, and unlike one another."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opom_jax.data import synthetic
from opom_jax.data.portrait.head import SIZE, TEMPLATE, alignment, landmarks, rotation_of


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """u8[4,3,112,112,3]: people 7, 8, 9 and 123456789, photos 0 to 2."""
    return synthetic.photos([7, 8, 9, 123_456_789], 3)


def test_shape_and_range(drawn):
    assert drawn.shape == (4, 3, SIZE, SIZE, 3) and drawn.dtype == np.uint8
    assert drawn.min() < 40 and drawn.max() > 215
    assert (drawn.std((2, 3, 4)) > 15).all()


def test_the_world_stays_as_the_networks_of_the_package_know_it(drawn):
    """A photo may round differently on another machine, no more. Whoever changes people or photos
    trains the networks anew and stores these again."""
    stored = np.asarray(Image.open(Path(__file__).with_name("synthetic_people_7_8.png")))
    found = np.concatenate(drawn[:2, :2].reshape(4, SIZE, SIZE, 3), 1)
    assert np.abs(found.astype(int) - stored).mean() < 0.5


def test_photo_does_not_depend_on_what_else_is_drawn(drawn):
    np.testing.assert_array_equal(synthetic.photos([8], 2, first=1)[0], drawn[1, 1:])


def test_another_seed_is_another_world(drawn):
    assert np.abs(synthetic.photos([7], 1, seed=1)[0, 0].astype(int) - drawn[0, 0]).mean() > 10


def test_photos_of_a_person_differ_less_than_people():
    """Centred pixels of forty people: the nearest other photo is of the same person more often than
    four times chance (1 in 40)."""
    faces = synthetic.photos(range(40), 2)[..., 20:100, 24:88, :].astype(np.float32)
    faces = faces.reshape(40, 2, -1) - faces.reshape(40, 2, -1).mean(-1, keepdims=True)
    faces /= np.linalg.norm(faces, axis=-1, keepdims=True)
    nearest = (faces[:, 0] @ faces[:, 1].T).argmax(1)
    assert np.mean(nearest == np.arange(40)) >= 0.1


def test_landmarks_lie_near_the_template():
    distances = []
    for person in range(40):
        i, p = synthetic.identity(person), synthetic.appearance(person, 0)
        rotation = rotation_of(p["yaw"], p["pitch"])
        factor, offset = alignment(i, p, rotation)
        found = np.asarray(factor * landmarks(i, p, rotation) + offset)
        distances.append(np.abs(found - np.array([complex(x, y) for x, y in TEMPLATE])))
    assert np.mean(distances) < 4.5 and np.max(distances) < 16


def test_every_parameter_varies_within_its_bounds():
    people = [synthetic.identity(k) for k in range(200)]
    for name, (low, high) in synthetic.IDENTITY.items():
        values = np.array([i[name] for i in people])
        assert low <= values.min() and values.max() <= high and values.std() > 0.2 * (high - low)


def test_progress_counts_photos():
    seen = []
    synthetic.photos([1], 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]


def test_a_film_moves_smoothly_between_photos():
    """In a frame a cubic moves an eighth of the way to the next photo, no more; nothing jumps."""
    path = synthetic.movement(8, 3 * synthetic.PACE + 1)
    passed = [synthetic.appearance(8, synthetic.FIRST_FILMED + k, 0, 0.0) for k in range(4)]
    assert not synthetic.identity(8)["wears_glasses"] and path[0].keys() == passed[0].keys()
    for name in path[0]:
        values = np.array([frame[name] for frame in path])
        ends = np.array([passed[k if name in synthetic.MOVING else 0][name] for k in range(4)])
        np.testing.assert_allclose(values[:: synthetic.PACE], ends, atol=1e-6)
        furthest = np.abs(np.diff(ends, axis=0)).max()
        assert np.abs(np.diff(values, axis=0)).max() <= 0.125 * furthest + 1e-6


def test_frames_of_a_film_resemble_their_neighbours():
    frames = synthetic.film([8], synthetic.PACE + 1)
    assert frames.shape == (1, synthetic.PACE + 1, SIZE, SIZE, 3) and frames.dtype == np.uint8
    frames = frames[0].astype(int)
    apart = [np.abs(frames[k] - frames[0]).mean() for k in (1, synthetic.PACE)]
    assert 0 < apart[0] < apart[1] / 2
    np.testing.assert_array_equal(synthetic.film([9, 8], 2)[1], frames[:2])
