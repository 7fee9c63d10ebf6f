"""Damaged and hostile files of every kind: loaded or refused in one sentence, and nothing else."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.converters import fuzzing, goodfiles

ROOT = Path(__file__).resolve().parents[2]
COUNT = 2000  # damaged files of each kind
GOOD = {
    "torch_zip": lambda folder: goodfiles.torch_file(folder / "good.pth", True),
    "torch_legacy": lambda folder: goodfiles.torch_file(folder / "good.pth", False),
    "params": lambda folder: goodfiles.mxnet_files(folder).with_name("good.params"),
    "symbol": goodfiles.mxnet_files,
    "onnx": lambda folder: goodfiles.onnx_file(folder / "good.onnx"),
    "safetensors": lambda folder: goodfiles.safetensors_file(folder / "good.safetensors"),
    "h5": lambda folder: goodfiles.h5_file(folder / "good.h5"),
    "keras": lambda folder: goodfiles.keras_file(folder / "good.keras"),
    "card": goodfiles.network_folder,
}
SLOW = ("h5", "keras")  # read in a process each


def child(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_every_kind_is_tried():
    assert GOOD.keys() == fuzzing.KINDS.keys()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in GOOD]
)
def test_two_thousand_damaged_files(kind, tmp_path):
    """Every seed is loaded or refused, some of them each, in bounded memory."""
    good = GOOD[kind](tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.name != "damaged" + good.suffix}
    ran = child("-m", "tests.converters.fuzzing", kind, good, 0, COUNT)
    *lines, last = ran.stdout.splitlines() or [""]
    bad = [line for line in lines if not line.split(" ", 1)[1].startswith(("loaded", "refused: "))]
    assert not bad, "\n".join(bad[:20])
    assert ran.returncode == 0, f"after {last!r}: {ran.stderr[-3000:]}"
    assert len(lines) == COUNT and 0 < sum(line.endswith(" loaded") for line in lines) < COUNT
    assert int(last.removeprefix("peak ")) < 1024
    assert {p for p in tmp_path.rglob("*") if p.name != "damaged" + good.suffix} == before


@pytest.mark.parametrize(
    "harm, said, code",
    [
        ("os.system('true')", "! os.system", 70),
        ("open('/tmp/opom-outside', 'w')", "! open", 70),
        ("open('/etc/passwd').read()", "! open", 70),
        ("while True: pass", "! Slow", 0),
        ("bytes(3 << 30)", "! MemoryError", 0),
        ("os.abort()", "0 ", -6),
        ("{}['a']", "! KeyError", 0),
        ("raise fuzzing.InputError('two\\nlines.')", "! not one sentence", 0),
    ],
)
def test_what_would_be_a_failure_is_seen(harm, said, code, tmp_path):
    good = goodfiles.safetensors_file(tmp_path / "good.safetensors")
    script = f"""
        import os, sys
        from tests.converters import fuzzing
        calls = []
        def read(path):
            calls.append(path)
            if len(calls) > 1:  # the first reads the good file
                {harm}
        fuzzing.SECONDS = 0.5
        fuzzing.KINDS["safetensors"] = fuzzing.KINDS["safetensors"]._replace(read=read)
        fuzzing.main("safetensors", sys.argv[1], 0, 1)
    """
    ran = child("-c", textwrap.dedent(script), good)
    assert ran.returncode == code and said in ran.stdout
