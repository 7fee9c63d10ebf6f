"""The demo: everything from nothing, and refusals."""

import csv
import json

import pytest

from opom_jax import laboratory
from opom_jax.cli import main

METHODS = len(laboratory.SURROGATES) * len(laboratory.METHODS)


@pytest.mark.slow
def test_demo_writes_report_and_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["opom-jax", "demo", "--people=2"]) == 0
    folder = tmp_path / "opom-demo"
    assert sorted(p.name for p in folder.iterdir()) == [
        "report.html",
        "results.json",
        "table.csv",
        "table.md",
    ]
    results = json.loads((folder / "results.json").read_text())
    assert set(results["targets"]) == set(laboratory.TARGETS)
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(laboratory.TARGETS) * (METHODS + 2)
    best = [float(line["top1"]) for line in lines if line["method"] == "OPOM-ConvexHull"]
    none = [float(line["top1"]) for line in lines if line["method"] == "none"]
    assert sum(best) / len(best) > 20 + sum(none) / len(none)
    said = capsys.readouterr().out
    assert "OPOM-ConvexHull" in said and "report.html" in said


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["opom-jax", "demo", f"--workdir={tmp_path / 'file'}"]) == 2
    assert "choose another --workdir" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--people=0", "--people=x", "--seed=-1", "--color=red"])
def test_bad_flags_are_refused(flag, capsys):
    assert main(["opom-jax", "demo", flag]) == 2
    assert capsys.readouterr().err.count("\n") == 1
