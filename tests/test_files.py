"""Files whole or not at all, and features that are kept."""

import errno
import os

import numpy as np
import pytest

from opom_jax import files
from opom_jax.errors import InputError
from opom_jax.evaluation.features import cached, check_features, same_network


@pytest.mark.parametrize("name", ["file/table.csv", "absent/table.csv", "x" * 300])
def test_what_cannot_be_written_is_said_in_a_sentence(tmp_path, name):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written .*choose another --workdir"),
        files.writing(tmp_path / name) as path,
    ):
        path.write_text("content")


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), files.writing(path) as partial:
        partial.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_is_removed(tmp_path):
    """Also that of one with the number of this process, and nothing else."""
    gone = [f".net.{number}.partial" for number in (os.getpid(), 10**7, 10**30)]
    kept = [".net.1.partial", ".net.x.partial", f".other.{10**7}.partial", f"net.{10**7}.partial"]
    for name in gone + kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with files.making(tmp_path / "net") as partial:
        (partial / "card").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "net"])
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["card"]


def test_digests_are_shown_by_their_beginning(tmp_path):
    one, other, path = "0123456789ab" + "c" * 52, "f" * 64, "/" + "a" * 70
    with pytest.raises(InputError) as caught:
        files.check_same(tmp_path, {"k": one, "p": path, "s": {"d": other}}, {"k": other, "p": 1})
    said = str(caught.value)
    assert "k: '0123456789ab…' there, 'ffffffffffff…' here" in said
    assert "s.d: 'ffffffffffff…' there, None here" in said and f"p: '{path}' there, 1 here" in said


@pytest.mark.parametrize("text", ["", '{"settings": {', "[]", "[" * 100_000, "\xff"])
def test_a_damaged_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="config.json cannot be read, .* use another --workdir"):
        files.begin(tmp_path, {})


def test_features_are_computed_once_and_again_when_damaged(tmp_path):
    wanted, calls = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), []

    def fill(out):
        calls.append(1)
        out[:] = wanted

    for _ in range(2):
        found = cached(tmp_path, {"k": 1}, (3, 4), fill)
        np.testing.assert_array_equal(found, wanted)
        assert isinstance(found, np.memmap)  # memory holds what is looked at
    assert len(calls) == 1
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    np.testing.assert_array_equal(np.load(path), wanted)
    for place in (1, content.find(wanted.tobytes()) + 7, -1):  # header, number, checksum
        changed = content.copy()
        changed[place] ^= 0x40
        path.write_bytes(changed)
        np.testing.assert_array_equal(cached(tmp_path, {"k": 1}, (3, 4), fill), wanted)
    path.write_bytes(content[:50])
    cached(tmp_path, {"k": 1}, (3, 4), fill)
    assert len(calls) == 5 and path.read_bytes() == content
    cached(tmp_path, {"k": 2}, (3, 4), fill)
    assert len(calls) == 6


def test_features_where_nothing_can_be_written(tmp_path, monkeypatch):
    def fill(out):
        out[:] = 7

    (tmp_path / "file").touch()
    found = [cached(tmp_path / "file", {}, (2, 3), fill)]
    monkeypatch.setattr(os, "posix_fallocate", _full_disk)
    found.append(cached(tmp_path / "full", {}, (2, 3), fill))
    assert all((features == 7).all() and features.shape == (2, 3) for features in found)
    assert not [*(tmp_path / "full").iterdir()]


def _full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_features_that_fail_leave_nothing(tmp_path):
    left = tmp_path / f".{'0' * 64}.npy.999999999.partial"
    with pytest.raises(InputError, match="broken"), files.making_file(tmp_path / "a.npy") as path:
        path.touch()
        raise InputError("broken photo")
    left.touch()
    with files.making_file(tmp_path / f"{'0' * 64}.npy") as path:
        path.write_text("whole")
    assert [found.read_text() for found in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    "probes, more, wrong",
    [
        ([[1, 0], [np.nan, 0]], [[1, 0]], "not finite"),
        ([[1, 0], [0, 1]], [[1, 0], [np.inf, 0]], "not finite"),
        ([[1, 0], [0, 1]], [[0, 0]], "zero"),
        ([[0.6, 0.8], [0.6, 0.8]], [[1, 0]], "the same for all photos"),
    ],
)
def test_features_of_a_broken_network(probes, more, wrong):
    with pytest.raises(InputError, match=f"'net' are {wrong}; convert or train"):
        check_features("net", np.float32(probes), np.float32(more))
    check_features("net", np.eye(2, dtype=np.float32), np.float32([[1, 0]]))


def test_one_network_by_its_features():
    draw = np.random.default_rng(0).normal(size=(2, 8, 64)).astype(np.float32)
    one, other = draw / np.linalg.norm(draw, axis=-1, keepdims=True)
    near = one + 0.002 * other
    near /= np.linalg.norm(near, axis=-1, keepdims=True)
    assert same_network(one, near) and not same_network(one, other)
    near[3] = other[3]  # one photo is enough to tell
    assert not same_network(one, near) and not same_network(one, one[:, :32])


def test_a_folder_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    for said in ({"a": 1}, {"a": 1}):
        assert files.begin(tmp_path, said, part="process-0") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(InputError, match="another configuration"):
        files.begin(tmp_path, {"a": 2}, part="process-1")


def test_locks_of_files_hold_where_those_of_folders_are_local(tmp_path):
    file = tmp_path / "config.json"
    again = files.locked(file, shared=True)
    refused = pytest.raises(InputError, match="Another process writes")
    with files.locked(file, shared=True), again, refused, files.locked(file):
        pass
    with files.locked(file), pytest.raises(InputError), files.locked(file, shared=True):
        pass
