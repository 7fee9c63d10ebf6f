"""generate in several processes: the files of one process, whatever dies."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opom_jax import parallel
from tests.cli.test_generate import ROOT, check_same, files, read


def masks(workdir: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(workdir).items() if name.endswith(".npy")}


def start(command: list[str], *flags: str) -> subprocess.Popen:
    command = [sys.executable, "run.py", *command, *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("meet", [False, True], ids=["apart", "jax.distributed"])
def test_two_processes_make_the_masks_of_one(world, finished, tmp_path, meet):
    flags = ["--processes=2", *([f"--coordinator=127.0.0.1:{free_port()}"] if meet else [])]
    command = world.generate(tmp_path / "run", *flags)
    both = [start(command, f"--process={k}") for k in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    ends = [out.splitlines()[-1] for out, _ in said]  # gloo says something too
    assert [end.split(" masks")[0] for end in ends] == ["2", "1"]
    assert masks(tmp_path / "run") == masks(finished)
    found = files(tmp_path / "run")
    lines = [found[f"metrics-{k}.jsonl"].splitlines() for k in range(2)]
    wanted = files(finished)
    assert sorted(lines[0] + lines[1]) == sorted(wanted["metrics.jsonl"].splitlines())
    assert found["config.json"] == wanted["config.json"]
    assert not [name for name in found if "partial" in name]


def test_a_process_that_died_is_started_again(world, opom, finished, tmp_path):
    command = world.generate(tmp_path / "run", "--processes=2", "--config.people_per_batch=1")
    dying = start(command, "--process=0")
    while not masks(tmp_path / "run"):
        assert dying.poll() is None, dying.communicate()
        time.sleep(0.02)
    dying.send_signal(signal.SIGKILL)
    dying.communicate()
    assert opom(*command, "--process=1").out.startswith("1 masks")
    assert opom(*command, "--process=0").out.startswith("2 masks")
    assert masks(tmp_path / "run") == masks(finished)


def test_one_process_takes_over_from_two(world, opom, finished, tmp_path):
    command = world.generate(tmp_path / "run")
    assert opom(*command, "--processes=2", "--process=1").code == 0
    assert masks(tmp_path / "run").keys() == {"masks/mask_id1.npy"}
    before = (tmp_path / "run/masks/mask_id1.npy").stat()
    answer = opom(*command)
    assert answer.code == 0 and answer.out.startswith("3 masks")
    assert masks(tmp_path / "run") == masks(finished)
    assert (tmp_path / "run/masks/mask_id1.npy").stat().st_mtime_ns == before.st_mtime_ns
    answer = opom(*world.evaluate(tmp_path / "run", "--config.data.train_per_person=2"))
    assert answer.code == 0


def test_a_process_without_people_has_nothing_to_do(world, opom, finished, tmp_path):
    command = world.generate(tmp_path / "run", "--processes=4")
    answer = opom(*command, "--process=3")
    assert answer.code == 0 and answer.out.startswith("0 masks")
    assert files(tmp_path / "run")["config.json"] == files(finished)["config.json"]


def test_the_first_process_decides_how_many_go_together(world, opom, finished, tmp_path):
    command = world.generate(tmp_path / "run", "--processes=2")
    assert opom(*command, "--process=0", "--config.people_per_batch=2").code == 0
    assert opom(*command, "--process=1", "--config.people_per_batch=0").code == 0
    answer = opom(*command, "--process=1", "--config.people_per_batch=3")
    assert answer.code == 2 and "people_per_batch: 2 there, 3 here" in answer.errors[0]
    check_same(read(tmp_path / "run")[0], read(finished)[0])


@pytest.mark.parametrize(
    "flags, said",
    {
        ("--processes=2", "--process=2"): "--process=2 must be below --processes=2.",
        ("--process=1",): "--process=1 must be below --processes=1.",
        ("--processes=0",): "--processes",
        ("--coordinator=here",): "--coordinator=here must be host:port",
        ("--coordinator=here:99999",): "the port between 1 and 65535",
        ("--coordinator=256.1.1.1:80",): "--coordinator=256.1.1.1:80 brings no processes together",
        ("--coordinator=auto",): "--coordinator=auto brings no processes together",
        ("--coordinator=auto", "--processes=2"): "--processes means nothing for --coordinator=auto",
        ("--processes=2", "--config.method=fi_uap_all"): "'fi_uap_all' makes one mask of everybody",
    }.items(),
)
def test_refused(world, opom, tmp_path, flags, said):
    answer = opom(*world.generate(tmp_path / "run", *flags))
    assert answer.code == 2 and len(answer.errors) == 1 and said in answer.errors[0]
    assert not (tmp_path / "run").exists()


def test_the_same_share_twice_is_refused(world, opom, tmp_path):
    command = world.generate(tmp_path / "run", "--processes=2", "--process=1")
    running = start(command)
    while not (tmp_path / "run" / ".process-1.lock").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    answer = opom(*command)
    whole = opom(*world.generate(tmp_path / "run"))
    assert running.poll() is None, "ended before the second came"
    assert answer.code == whole.code == 2
    assert "as process-1; wait." in answer.errors[0] and "Another" in whole.errors[0]
    running.communicate()
    assert running.returncode == 0


def test_a_coordinator_that_does_not_answer_is_said(world, opom, tmp_path, monkeypatch):
    """Of the first process a port that is taken, of others one that nobody opened."""
    monkeypatch.setattr(parallel, "PATIENCE", 0)
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        answer = opom(*world.generate(tmp_path / "run", f"--coordinator=localhost:{port}"))
    assert answer.code == 2 and f"localhost:{port} brings no processes" in answer.errors[0]
    flags = "--processes=2", "--process=1", f"--coordinator=localhost:{free_port()}"
    answer = opom(*world.generate(tmp_path / "run", *flags))
    assert answer.code == 2 and "start all of them" in answer.errors[0]
    assert not (tmp_path / "run").exists()
