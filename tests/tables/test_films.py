"""Films: nobody's picture serves twice, and what is missing is said."""

import numpy as np
import pytest
from PIL import Image

from opom_jax import laboratory
from opom_jax.errors import InputError
from opom_jax.tables import films
from opom_jax.tables.worlds import World


def test_synthetic_films_know_the_people_of_studies():
    one, other = films.synthetic_films(2, 3, 2, 4, first=5)
    photos = laboratory.synthetic_photos(2, 4, 2, 0, first=5)
    assert (one.name, other.name) == ("person 5", "person 6")
    np.testing.assert_array_equal(other.web, photos.train[1])
    np.testing.assert_array_equal(other.prototype, photos.probes[2:])
    assert other.frames.shape == (3, 112, 112, 3)
    assert np.abs(one.frames[0].astype(int) - other.frames[0]).mean() > 10


def test_photos_are_split_without_overlap():
    photos = np.arange(15, dtype=np.uint8)[:, None, None, None]
    film = films.from_photos("somebody", photos)
    assert [len(part) for part in film[1:]] == [5, 7, 3]
    np.testing.assert_array_equal(np.concatenate(film[1:]), photos)
    with pytest.raises(InputError, match="somebody has 12 photos, needs more than 12"):
        films.from_photos("somebody", photos[:12])


@pytest.fixture
def folders(tmp_path):
    """Folders of one, two and three grey pictures of 8 x 8 pixels."""
    for count, name in enumerate(("prototype", "web", "frames"), start=1):
        (tmp_path / name).mkdir()
        for k in reversed(range(count)):
            Image.new("RGB", (8, 8), (10 * count + k,) * 3).save(tmp_path / name / f"{k}.png")
    return [tmp_path / name for name in ("prototype", "web", "frames")]


def test_folders_are_read_in_order_of_name(folders):
    film = films.from_folders(*folders, size=8)
    assert film.name == "frames"
    assert [part[:, 0, 0, 0].tolist() for part in film[1:]] == [[10], [20, 21], [30, 31, 32]]


def test_films_are_named_by_their_folders(folders, tmp_path):
    for name in ("b", "a"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for part in folders:
            (tmp_path / "films" / name / part.name).symlink_to(part)
    assert [film.name for film in films.in_folder(tmp_path / "films", 8)] == ["a", "b"]
    (tmp_path / "films" / "a" / "web").unlink()
    with pytest.raises(InputError, match="a/web' is no folder; put photos"):
        films.in_folder(tmp_path / "films", 8)


def test_people_keep_their_names():
    photos = np.zeros((2, 8, 1, 1, 3), np.uint8)
    seen = laboratory.Photos(photos, photos.reshape(16, 1, 1, 3), (8, 8), photos[0])
    for names, wanted in ((("Ann", "Bob"), "Bob"), ((), "person 1")):
        world = World("real", seen, {}, {}, names)
        assert films.of_world(world)[1].name == wanted


@pytest.mark.parametrize("which", range(3))
def test_an_empty_folder_is_refused(folders, which):
    for picture in folders[which].iterdir():
        picture.unlink()
    with pytest.raises(InputError, match=f"{folders[which].name}' has no images; give a folder"):
        films.from_folders(*folders, size=8)


def test_a_missing_folder_and_another_size_are_refused(folders):
    with pytest.raises(InputError, match="nowhere"):
        films.from_folders(folders[0], folders[1], folders[2] / "nowhere", size=8)
    with pytest.raises(InputError, match="8 x 8 pixels, not 112 x 112"):
        films.from_folders(*folders)
