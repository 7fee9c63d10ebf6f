"""What was computed is read again, whatever happened to its file."""

import numpy as np
import pytest

import opom_jax
from opom_jax.errors import InputError
from opom_jax.tables.kept import SUM, kept

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def never():
    pytest.fail("computed again")


def test_an_array_is_computed_once(tmp_path):
    assert kept(tmp_path, "some", {"a": 1}, lambda: ARRAY) is ARRAY
    again = kept(tmp_path, "some", {"a": 1}, never)
    np.testing.assert_array_equal(again, ARRAY)
    assert again.dtype == np.float32
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("some-") and path.suffix == ".npy"
    np.testing.assert_array_equal(np.load(path), ARRAY)  # for other programs, too


@pytest.mark.parametrize("key", [{}, {"a": 2}, {"a": 1, "b": None}, {"a": [1]}])
def test_another_key_is_another_file(tmp_path, key):
    kept(tmp_path, "some", {"a": 1}, lambda: ARRAY)
    np.testing.assert_array_equal(kept(tmp_path, "some", key, lambda: -ARRAY), -ARRAY)
    np.testing.assert_array_equal(kept(tmp_path, "some", {"a": 1}, never), ARRAY)


def test_another_version_computes_anew(tmp_path, monkeypatch):
    kept(tmp_path, "some", {}, lambda: ARRAY)
    monkeypatch.setattr(opom_jax, "__version__", "another")
    assert len(kept(tmp_path, "some", {}, lambda: ARRAY[:1])) == 1


def test_any_damage_is_mended(tmp_path):
    kept(tmp_path, "some", {}, lambda: ARRAY)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 1, SUM, SUM + 1, 90, len(whole) - 1)]
    damaged += [whole[:-SUM], whole + b"x", b"PK\x03\x04" + whole]
    for place in range(0, len(whole), 7):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        np.testing.assert_array_equal(kept(tmp_path, "some", {}, lambda: ARRAY), ARRAY)
        assert path.read_bytes() == whole


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError("too bad")

    with pytest.raises(RuntimeError, match="too bad"):
        kept(tmp_path, "some", {}, fail)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot be written"):
        kept(tmp_path / "nowhere", "some", {}, lambda: ARRAY)
