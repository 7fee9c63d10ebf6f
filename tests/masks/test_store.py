"""The folder of masks: what it holds, what it refuses, and what is left after any interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from opom_jax.errors import InputError
from opom_jax.masks.store import Store, mask_path, mask_paths, read_mask
from opom_jax.parallel import Share

SIZE = 4
CONFIG = {"settings": {"seed": 0, "steps": 2}, "people": 3, "image_size": SIZE}
MASKS = np.random.default_rng(0).uniform(-8, 8, (3, SIZE, SIZE, 3)).astype(np.float32)
LINES = [{"name": name, "objective": [0.1, 0.2]} for name in "abc"]


def write(workdir: Path) -> None:
    """A run in two batches, as `generate` does it."""
    with Store(workdir, CONFIG) as kept:
        for people in ([0, 1], [2]):
            if not kept.done(people):
                kept.write(people, MASKS[people], [LINES[k] for k in people])


def files(workdir: Path) -> dict[str, bytes]:
    found = (path for path in workdir.rglob("*") if path.is_file())
    return {str(path.relative_to(workdir)): path.read_bytes() for path in found}


@pytest.fixture
def workdir(tmp_path) -> Path:
    """A finished run."""
    write(tmp_path / "run")
    return tmp_path / "run"


def check_refused(workdir: Path, *named: str, config=CONFIG) -> None:
    before = files(workdir)
    with pytest.raises(InputError) as caught, Store(workdir, config):
        pass
    sentence = str(caught.value)
    assert "\n" not in sentence and all(name in sentence for name in (str(workdir), *named))
    assert files(workdir) == before


def test_files(workdir):
    masks = {f"masks/mask_id{k}.npy" for k in range(3)}
    assert set(files(workdir)) == {"config.json", "metrics.jsonl"} | masks
    for k in range(3):
        np.testing.assert_array_equal(np.load(mask_path(workdir, k)), MASKS[k].transpose(2, 0, 1))
        np.testing.assert_array_equal(read_mask(mask_path(workdir, k), SIZE), MASKS[k], strict=True)
    assert json.loads((workdir / "config.json").read_text()) == CONFIG
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"id": k} | LINES[k] for k in range(3)]


def test_diverse_masks(tmp_path):
    config, masks = CONFIG | {"diverse": 2}, np.stack([MASKS, -MASKS], 1)
    with Store(tmp_path, config) as kept:
        kept.write([0, 1], masks[:2], LINES[:2])
        assert kept.done([0, 1]) and not kept.done([1, 2])
        mask_paths(tmp_path, 1, 2)[1].unlink()
        assert kept.done([0]) and not kept.done([0, 1])
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        "mask_id0_0.npy",
        "mask_id0_1.npy",
        "mask_id1_0.npy",
    }
    for path, sign in zip(mask_paths(tmp_path, 0, 2), (1, -1), strict=True):
        np.testing.assert_array_equal(read_mask(path, SIZE), sign * MASKS[0])
    check_refused(tmp_path, "diverse")


def test_done_needs_every_mask_and_line(workdir):
    with Store(workdir, CONFIG) as kept:
        assert kept.done([0, 1, 2])
        mask_path(workdir, 1).unlink()
        assert not kept.done([0, 1]) and kept.done([2])
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text(lines[0])
    with Store(workdir, CONFIG) as kept:
        assert kept.done([0]) and not kept.done([0, 1]) and not kept.done([2])


# What may stand where the second line was.
BAD_LINES = {
    "cut": b'{"id": 1, "na',
    "without its end": b'{"id": 1, "name": "b"}',
    "no JSON": b"hello\n",
    "no UTF-8": b"\xff\xfe\n",
    "zeros, as a power cut leaves them": bytes(100) + b"\n",
    "no dict": b"[1]\n",
    "no id": b'{"name": "b"}\n',
    "an id that is no number": b'{"id": "1"}\n',
    "an id of nobody": b'{"id": 3, "name": "b"}\n',
    "an id below all": b'{"id": -1, "name": "b"}\n',
    "an id that is a truth": b'{"id": true, "name": "b"}\n',
    "blank": b"\n",
    "NaN": b'{"id": 1, "objective": [NaN, -Infinity]}\n',
    "deep": b'{"id": ' + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("rest", [b"", b'{"id": 2, "name": "c"}\n'], ids=["last", "amid"])
def test_bad_lines_are_cut_away_and_made_again(workdir, bad, rest):
    wanted = files(workdir)
    metrics = workdir / "metrics.jsonl"
    first = metrics.read_bytes().splitlines(keepends=True)[0]
    metrics.write_bytes(first + bad + rest)
    with Store(workdir, CONFIG) as kept:
        assert metrics.read_bytes() == first
        assert kept.recorded.tolist() == [True, False, False]
    write(workdir)
    assert files(workdir) == wanted


def test_numbers_that_json_has_not_are_not_written(tmp_path):
    with Store(tmp_path, CONFIG) as kept, pytest.raises(ValueError, match="JSON"):
        kept.write([0], MASKS[:1], [{"objective": [float("nan")]}])
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, (",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, %d, 4)}" % 10**30,
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4, 4)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 8)}",
        b"(" * 9_000,
    ],
)
def test_a_mask_with_another_header_is_not_done(workdir, header):
    text = header.ljust(-len(header) % 64 + len(header) - 11) + b"\n"
    path = mask_path(workdir, 1)
    path.write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(192))
    with pytest.raises(InputError, match="mask_id1.npy"):
        read_mask(path, SIZE)
    with Store(workdir, CONFIG) as kept:
        assert not kept.done([1]) and kept.done([0, 2])


def test_a_decided_number_is_an_integer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"size": 3.0}))
    with Store(tmp_path, CONFIG | {"size": 3}, decided=["size"]) as kept:
        assert type(kept.config["size"]) is int


@pytest.mark.parametrize("value", [np.nan, np.inf, -8.01])
def test_a_mask_with_other_values_is_not_done(tmp_path, value):
    config = CONFIG | {"settings": {"epsilon": 8.0}}
    with Store(tmp_path, config) as kept:
        kept.write([0], np.clip(MASKS[:1] * 2, -8.0005, 8.0005), LINES[:1])
        assert kept.done([0])
        np.save(mask_path(tmp_path, 0), np.full((3, SIZE, SIZE), value, np.float32))
        assert not kept.done([0])


def test_a_finished_run_is_left_alone(workdir):
    before = {path: path.stat() for path in workdir.rglob("*")}
    write(workdir)
    for path, state in before.items():
        now = path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (state.st_ino, state.st_mtime_ns), path


def test_leftovers_are_removed(workdir):
    wanted = files(workdir)
    for k in (0, 7):
        (workdir / f"masks/.mask_id{k}.npy.partial").write_bytes(b"half")
    write(workdir)
    assert files(workdir) == wanted


def test_one_process_at_a_time(workdir):
    with Store(workdir, CONFIG):
        check_refused(workdir, "Another process")
    write(workdir)


def test_who_is_alone_mends_what_several_left(tmp_path):
    journal = tmp_path / "metrics-0.jsonl"
    with Store(tmp_path, CONFIG, Share(0, 2)) as kept:
        kept.write([0], MASKS[:1], LINES[:1])
    torn = journal.read_bytes()[:-9]
    journal.write_bytes(torn)
    with Store(tmp_path, CONFIG, Share(1, 2)):
        assert journal.read_bytes() == torn, "0 may be at work"
    with Store(tmp_path, CONFIG) as kept:
        assert journal.read_bytes() == b"" and not kept.recorded.any()


def test_two_shares_that_overlap_may_write_the_same_mask(tmp_path, monkeypatch):
    """As those of runs with another number of processes."""
    save = np.save

    def at_once(*arguments):
        monkeypatch.setattr(np, "save", save)
        two.write([0], MASKS[:1], LINES[:1])
        save(*arguments)

    with Store(tmp_path, CONFIG, Share(0, 2)) as one, Store(tmp_path, CONFIG, Share(1, 3)) as two:
        monkeypatch.setattr(np, "save", at_once)
        one.write([0], MASKS[:1], LINES[:1])
        assert one.done([0]) and two.done([0])


def test_the_folder_is_free_after_an_error(workdir):
    check_refused(workdir, "people", config=CONFIG | {"people": 4})
    with pytest.raises(KeyboardInterrupt), Store(workdir, CONFIG):
        raise KeyboardInterrupt
    write(workdir)


def test_another_configuration_is_refused_by_its_keys(workdir):
    settings = {"settings.seed: 0 there, 1 here", "settings.steps: 2 there, None here"}
    check_refused(workdir, *settings, config=CONFIG | {"settings": {"seed": 1}})
    check_refused(workdir, "device: None there, 'cpu' here", config=CONFIG | {"device": "cpu"})


def test_masks_of_unknown_origin_are_refused(workdir):
    (workdir / "config.json").unlink()
    check_refused(workdir, "config.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_config_is_refused(workdir, content):
    (workdir / "config.json").write_bytes(content)
    check_refused(workdir, "config.json")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "masks/.mask_id0.npy.partial"])
def test_a_folder_in_place_of_a_file_is_refused(workdir, name):
    (workdir / name).unlink(missing_ok=True)
    (workdir / name).mkdir()
    check_refused(workdir, name)


@pytest.mark.parametrize("name", ["run", "run/masks"])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    check_refused(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    (tmp_path / "run").mkdir(mode=0o500)
    check_refused(tmp_path / "run")


FULL = Path("/dev/full")
full_disk = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full, which is a full disk")


def check_no_room(workdir: Path, place: Path, file: Path) -> None:
    """Everything written at `place` meets a full disk: one sentence names `file`, nothing stays
    half-written, and when there is room again the run goes on."""
    with Store(workdir, CONFIG) as kept:
        place.symlink_to(FULL)
        with pytest.raises(InputError) as caught:
            kept.write([0, 1], MASKS[[0, 1]], LINES[:2])
        assert not kept.done([0]) and not kept.done([1])
    sentence = str(caught.value)
    assert str(file) in sentence and "make room" in sentence and "None" not in sentence
    place.unlink(missing_ok=True)
    assert not list(workdir.rglob("*.partial"))
    write(workdir)
    write(workdir.with_name("undisturbed"))
    assert files(workdir) == files(workdir.with_name("undisturbed"))


@full_disk
def test_no_room_for_a_mask(tmp_path):
    path = mask_path(tmp_path / "run", 1)
    check_no_room(tmp_path / "run", path.with_name(f".{path.name}.partial"), path)


@full_disk
def test_no_room_for_a_line(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    check_no_room(tmp_path / "run", path, path)


@full_disk
def test_no_room_for_the_configuration(tmp_path):
    (tmp_path / ".config.json.partial").symlink_to(FULL)
    with pytest.raises(InputError, match=r"config\.json cannot be written \(No space left"):
        write(tmp_path)
    assert files(tmp_path) == {}
    write(tmp_path)


def test_a_write_error_without_a_number(tmp_path, monkeypatch):
    """NumPy's short writes have a text only."""

    def save(file, array):
        raise OSError("48 requested and 0 written")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(InputError, match="48 requested and 0 written"):
        write(tmp_path)
    assert set(files(tmp_path)) == {"config.json"}


# Processes that write a run each, into <folder>/<moment>, and are killed before so many changes to
# it, until one comes to its end: a mask counts once more when half of it is written.
DYING = """
import itertools, os, pathlib, signal, sys
import numpy as np
from test_store import write

def dies(workdir, moment):
    count, save = itertools.count(), np.save

    def passed():
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        changes = ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate")
        if event in changes and str(arguments[0]).startswith(workdir):
            passed()

    def halving(file, array):
        save(file, array)
        size = file.tell()
        file.truncate(size // 2)
        passed()
        file.seek(0)
        save(file, array)

    np.save = halving
    sys.addaudithook(hook)
    write(pathlib.Path(workdir))
    os._exit(0)

for moment in itertools.count():
    child = os.fork() or dies(f"{sys.argv[1]}/{moment}", moment)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(code)
"""


def test_killed_at_any_moment(tmp_path):
    wanted, died = tmp_path / "undisturbed", tmp_path / "died"
    write(wanted)
    died.mkdir()
    path = os.pathsep.join((str(Path(__file__).parents[2]), str(Path(__file__).parent)))
    command = [sys.executable, "-c", DYING, str(died)]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    moments = len(list(died.iterdir()))  # before the first change there is no folder
    for moment in range(moments + 1):
        workdir = died / str(moment)
        for mask in (workdir / "masks").glob("mask_id*"):
            assert mask.read_bytes() == (wanted / "masks" / mask.name).read_bytes()
        write(workdir)
        assert files(workdir) == files(wanted)
    assert moments > 15
