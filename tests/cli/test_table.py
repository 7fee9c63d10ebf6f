"""table: refusals before anything is made, and whole runs that are not made again."""

import csv
import functools
from pathlib import Path

import pytest
from PIL import Image

from opom_jax import laboratory, tables
from opom_jax.cli import table
from opom_jax.data import people
from opom_jax.tables import paper, worlds
from opom_jax.tables import study as studies
from opom_jax.tables.options import Options
from opom_jax.tables.sheet import Sheet


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def refused(opom, tmp_path, monkeypatch):
    """refused(flags, part, ...) checks that a command is refused in one sentence with these parts
    before anything is drawn, loaded or made; gives back the lines after the first."""
    for what, name in ((worlds, "zoo"), (worlds, "on_disk"), (table, "convert")):
        monkeypatch.setattr(what, name, lambda *_: pytest.fail("made before it was refused"))
    monkeypatch.delenv("OPOM_REAL_DATA", raising=False)

    def check(flags, *named: object) -> list[str]:
        before = contents(tmp_path)
        workdir = [] if any("--workdir" in f for f in flags) else [f"--workdir={tmp_path / 'new'}"]
        answer = opom("table", *flags, *workdir)
        assert answer.code == 2 and answer.out == ""
        sentence, *more = answer.errors
        assert sentence.startswith("opom-jax table: ")
        for part in named:
            assert str(part) in sentence
        assert contents(tmp_path) == before and not (tmp_path / "new").exists()
        return more

    return check


REFUSED = {
    "no table": ([], ["--table", "--figure"]),
    "table and figure": (["--table=2", "--figure=2"], ["--table", "--figure"]),
    "unknown table": (["--table=7"], ["--table=7", "2|3|4|5|6"]),
    "unknown figure": (["--figure=3"], ["--figure=3", "2|4|6|7|8"]),
    "no number": (["--table=two"], ["--table=two", "2|3|4|5|6"]),
    "unknown world": (["--table=2", "--on=mars"], ["--on=mars", "zoo|real|paper"]),
    "celebrities of the zoo": (["--table=3"], ["Table 3", "--table=2", "--on=paper"]),
    "real celebrities": (["--table=5", "--on=real"], ["Table 5", "--table=4", "--on=paper"]),
    "unknown surrogate": (
        ["--table=2", "--surrogates=ArcFace,SENet"],
        ["--surrogates=SENet", "Softmax, CosFace"],
    ),
    "surrogate of another world": (
        ["--table=2", "--on=real", "--surrogates=ArcFace"],
        ["--surrogates=ArcFace", "xiaoccer"],
    ),
    "a surrogate twice": (["--table=2", "--surrogates=Softmax,Softmax"], ["Softmax twice"]),
    "memory of no number": (["--table=2", "--memory_gib=nan"], ["--memory_gib=nan"]),
    "endless memory": (["--table=2", "--memory_gib=inf"], ["--memory_gib=inf"]),
    "no decay": (["--table=4", "--momentum=nan"], ["--momentum=nan"]),
    "everything dropped": (["--table=4", "--dropout=1"], ["--dropout=1"]),
    "data of the zoo": (["--table=2", "--data={root}"], ["--data={root}", "--on=real"]),
    "real data not named": (["--table=2", "--on=real"], ["--data", "OPOM_REAL_DATA"]),
    "no real data": (
        ["--table=2", "--on=real", "--data={root}/nowhere"],
        ["{root}/nowhere/faces_112/lfw' is missing", "--data"],
    ),
    "no films": (["--figure=8", "--films={root}/empty"], ["{root}/empty' has no films"]),
    "no folder of films": (["--figure=8", "--films={root}/nowhere"], ["has no films"]),
    "films without frames": (["--figure=8", "--films={root}/films"], ["films/one/frames"]),
    "people with films": (
        ["--figure=8", "--films={root}/films", "--people=3"],
        ["--people means nothing for --films; leave it out"],
    ),
    "films of another figure": (
        ["--figure=4", "--films={root}/films"],
        ["--films means nothing for --figure=4; leave it out"],
    ),
    "a data set of a table": (
        ["--table=2", "--on=paper", "--dataset=celebrities"],
        ["--dataset means nothing for --table=2 --on=paper; leave it out"],
    ),
    "a data set of the zoo": (
        ["--figure=2", "--dataset=commons"],
        ["--dataset means nothing for --figure=2 --on=zoo; leave it out"],
    ),
    "no data set": (["--figure=2", "--on=paper", "--dataset=lfw"], ["commons|celebrities"]),
    "a negative number": (["--table=2", "--people=-1"], ["--people=-1"]),
    "no random start": (["--table=2", "--seeds=0"], ["--seeds=0"]),
    "no memory": (["--table=2", "--memory_gib=-1"], ["--memory_gib=-1"]),
    "no workdir": (["--table=2", "--workdir="], ["--workdir"]),
    "a file for a workdir": (["--table=2", "--workdir={root}/file"], ["{root}/file is no folder"]),
    "a file where masks go": (
        ["--table=2", "--workdir={root}/taken"],
        ["{root}/taken/zoo cannot be used", "masks", "choose another --workdir"],
    ),
    "below a file": (
        ["--table=2", "--workdir={root}/file/new"],
        ["{root}/file/new cannot be used ({root}/file is no folder)", "choose another --workdir"],
    ),
    "a stray word": (["--table=2", "stray"], ["'stray'"]),
}


@pytest.mark.parametrize("flags, named", REFUSED.values(), ids=REFUSED)
def test_refused(refused, tmp_path, flags, named):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "taken" / "zoo").mkdir(parents=True)
    (tmp_path / "taken" / "zoo" / "masks").write_text("kept")
    for part in ("prototype", "web"):
        (tmp_path / "films" / "one" / part).mkdir(parents=True)
        Image.new("RGB", (112, 112)).save(tmp_path / "films" / "one" / part / "0.png")
    flags, named = ([part.format(root=tmp_path) for part in parts] for parts in (flags, named))
    assert refused(flags, *named) == []


USELESS = {
    "seeds": ["table=6", "figure=2", "figure=4", "figure=6", "figure=8"],
    "iterations": ["table=4", "table=6", "figure=2", "figure=4", "figure=8"],
    "epochs": ["table=4", "table=6", "figure=2", "figure=4", "figure=8"],
    "steps": ["table=2", "table=6", "figure=2", "figure=4", "figure=6", "figure=8"],
    "momentum": ["table=2", "table=6", "figure=2", "figure=4", "figure=6", "figure=8"],
    "dropout": ["table=2", "table=6", "figure=2", "figure=4", "figure=6", "figure=8"],
}


@pytest.mark.parametrize(
    "flag, of", [(flag, of) for flag, all_of in USELESS.items() for of in all_of]
)
def test_a_flag_that_means_nothing(refused, flag, of):
    value = "0.1" if flag in ("momentum", "dropout") else "5"
    refused([f"--{of}", f"--{flag}={value}"], f"--{flag} means nothing for --{of}; leave it out")


READ = {
    "table=2": ["--seeds=5", "--iterations=5", "--epochs=5"],
    "table=4": ["--seeds=5", "--steps=5", "--momentum=0.5", "--dropout=0.5"],
    "figure=6": ["--iterations=5", "--epochs=5"],
}


@pytest.mark.parametrize("of, flags", READ.items(), ids=READ)
def test_flags_that_mean_something(refused, of, flags):
    refused([f"--{of}", *flags, "--surrogates=nobody"], "--surrogates=nobody must be")


@pytest.mark.parametrize("missing", ["xiaoccer", "insightface_y1"])
def test_real_data_without_a_network(refused, tmp_path, missing):
    for part in (table.FACES, table.OTHERS):
        (tmp_path / "data" / part).mkdir(parents=True)
    for name, (file, _) in table.REAL.items():
        if name != missing:
            (tmp_path / "data" / "weights" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / "weights" / file).touch()
    flags = ["--table=2", "--on=real", f"--data={tmp_path / 'data'}"]
    assert refused(flags, tmp_path / "data" / "weights" / table.REAL[missing][0]) == []


@pytest.mark.parametrize(
    "flag, dataset",
    [
        ("--table=2", "commons"),
        ("--table=3", "celebrities"),
        ("--figure=4", "commons"),
        ("--figure=2 --dataset=celebrities", "celebrities"),
    ],
)
def test_an_incomplete_folder_of_the_authors(refused, tmp_path, flag, dataset):
    """A sentence for everything that is missing."""
    (tmp_path / "data").mkdir()
    more = refused([*flag.split(), "--on=paper", f"--data={tmp_path / 'data'}"], "is not complete")
    assert more == paper.missing(tmp_path / "data", dataset) and len(more) == 3 + 9
    assert all(line.endswith(".") for line in more)


# Whole runs.


def forbid(monkeypatch) -> None:
    """Whatever converts networks or computes masks, features and ranks fails from now on."""
    computing = (
        *((table, name) for name in ("convert", "convert_graph")),
        *((laboratory, name) for name in ("make_masks", "extractor")),
        *((studies, name) for name in ("extractor", "ranks")),
    )
    for what, name in computing:
        monkeypatch.setattr(what, name, lambda *_, **__: pytest.fail("made again"))


@pytest.fixture
def few_others(monkeypatch):
    """Twenty distractors instead of two thousand."""
    photos = functools.partial(laboratory.synthetic_photos, distractors=20)
    monkeypatch.setattr(laboratory, "synthetic_photos", photos)


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    with open(path, newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    return head, lines


def check_run(answer, folder: Path, name: str) -> list[str]:
    """The files of a run that went well are what it says; what it told while computing."""
    assert answer.code == 0, answer.errors
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert answer.out == f"{text}\n{folder / name}.md, .csv, .png\n"
    head, lines = read(folder / f"{name}.csv")
    assert lines and {len(line) for line in lines} == {len(head)}
    with Image.open(folder / f"{name}.png") as picture:
        picture.verify()
    return answer.errors


def test_a_figure_of_the_zoo(opom, few_others, tmp_path, monkeypatch):
    command = ["table", "--figure=4", "--people=2", "--surrogates=ArcFace"]
    command.append(f"--workdir={tmp_path}")
    said = check_run(opom(*command), tmp_path / "zoo", "figure4")
    assert said[-1].endswith("looks at masked photos")
    assert said.count("masks of convex_hull by ArcFace, people 1 and on") == 1
    _, lines = read(tmp_path / "zoo" / "figure4.csv")
    alike = {(name, target): float(value) for _, name, target, value, *_ in lines}
    assert {target for _, target in alike} == set(laboratory.TARGETS)
    for target in laboratory.TARGETS:
        assert alike["OPOM-ConvexHull", target] < alike["random noise", target] - 0.1

    before = contents(tmp_path)
    forbid(monkeypatch)
    assert check_run(opom(*command), tmp_path / "zoo", "figure4") == []
    assert contents(tmp_path) == before


def test_the_papers_data_are_taken_as_asked(opom, tmp_path, monkeypatch):
    """What is done with them has tests of its own (test_paper.py)."""
    asked = []
    monkeypatch.setattr(paper, "check", lambda *of: asked.append(of))
    monkeypatch.setattr(paper, "world", lambda *of: asked.append(of) or "world")
    sheet = Sheet("T", ["a"], [["1"]], ["a"], [[1]], [], lambda figure: figure.subplots())

    def make(study, options):
        asked.append((study.world, study.folder, study.memory_gib, options))
        return sheet

    monkeypatch.setitem(tables.TABLES, 3, make)
    flags = ["--surrogates=CosFace", "--seeds=2", "--iterations=3", "--epochs=4"]
    flags += ["--people=6", "--memory_gib=7", f"--workdir={tmp_path}", "--data=there"]
    check_run(opom("table", "--table=3", "--on=paper", *flags), tmp_path / "paper", "table3")
    options = Options(("CosFace",), seeds=2, iterations=3, epochs=4)
    assert asked == [
        ("there", "celebrities"),
        ("there", "celebrities", 6),
        ("world", tmp_path / "paper", 7.0, options),
    ]
    monkeypatch.setitem(tables.FIGURES, 2, lambda study, options: sheet)
    for dataset, name in (("commons", "figure2"), ("celebrities", "figure2_celebrities")):
        flags = [f"--dataset={dataset}", f"--workdir={tmp_path}", "--data=there"]
        check_run(opom("table", "--figure=2", "--on=paper", *flags), tmp_path / "paper", name)
        assert asked[-1] == ("there", dataset, 0)


@pytest.fixture
def some_real(real, tmp_path) -> Path:
    """The real data with thirty distractors."""
    data = tmp_path / "data"
    (data / table.OTHERS).mkdir(parents=True)
    (data / "weights").symlink_to(real / "weights")
    (data / table.FACES).symlink_to(real / table.FACES)
    for number, path in enumerate(people.flat_images(real / table.OTHERS)[:30]):
        (data / table.OTHERS / f"{number}{path.suffix}").symlink_to(path)
    return data


@pytest.mark.real
@pytest.mark.slow
def test_a_figure_of_real_faces(opom, some_real, tmp_path, monkeypatch):
    command = ["table", "--figure=4", "--on=real", "--people=2", "--surrogates=foamliu"]
    command += [f"--data={some_real}", f"--workdir={tmp_path / 'made'}"]
    folder = tmp_path / "made" / "real"
    check_run(opom(*command), folder, "figure4")
    _, lines = read(folder / "figure4.csv")
    alike = {(name, target): float(value) for _, name, target, value, *_ in lines}
    assert {target for _, target in alike} == set(table.REAL)
    for target in table.REAL:
        assert alike["no mask", target] > 0.3
        assert alike["OPOM-ConvexHull", target] < alike["random noise", target] - 0.05
    text = (folder / "figure4.md").read_text(encoding="utf-8")
    head, _, *rows = (line.strip("| ").split(" | ") for line in text.split("\n\n")[1].split("\n"))
    starred = [name for name, cell in zip(head, rows[2], strict=True) if cell.endswith("*")]
    assert starred == ["foamliu similarity", "foamliu TAR"]

    before = contents(folder)
    forbid(monkeypatch)
    assert check_run(opom(*command), folder, "figure4") == []
    assert contents(folder) == before
