"""Bad input: one sentence that names it and the mend, exit code 2, nothing computed or written."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from opom_jax.cli import evaluate
from opom_jax.cli.config import get_config
from opom_jax.masks import generate as masks
from opom_jax.networks import recognizer
from tests.converters import goodfiles

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "mobilefacenet_lh185k"
RIGHT = (3, 112, 112)


@pytest.fixture(autouse=True)
def nothing_computed(opom, monkeypatch):
    """Compiling is the first thing after all checks."""
    for what, name in ((masks, "generator"), (evaluate, "extractor")):
        monkeypatch.setattr(what, name, lambda *_: pytest.fail("computed before it was refused"))


@pytest.fixture
def own(world, tmp_path):
    """The world with people and distractors that may be damaged, and masks for everybody in
    `own.root / "run"`."""
    own = type(world).at(tmp_path / "own")
    for name in ("people", "distractors"):
        shutil.copytree(world.root / name, own.root / name)
    (own.root / "run" / "masks").mkdir(parents=True)
    for k in range(3):
        np.save(own.root / "run" / "masks" / f"mask_id{k}.npy", np.zeros(RIGHT, np.float32))
    return own._replace(network=world.network, other=world.other)


def with_own_networks(own):
    """Networks that may be damaged, too."""
    for network in (own.network, own.other):
        shutil.copytree(network, own.root / network.name)
    return own._replace(network=own.root / "network", other=own.root / "other")


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def check_refused(answer, *named: object) -> str:
    assert answer.code == 2 and answer.out == ""
    assert len(answer.errors) == 1, answer.errors
    (sentence,) = answer.errors
    assert sentence.startswith("opom-jax") and sentence.endswith(".")
    for name in named:
        assert str(name) in sentence
    return sentence


# The command line.


def test_no_verb_lists_the_verbs(opom):
    answer = opom()
    assert answer.code == 0 and answer.errors == []
    for verb in ("convert", "generate", "evaluate"):
        assert f"\n  {verb} " in answer.out


ARRAYS = ["convert", "--weights=x", f"--network={NETWORK}", "--out=y"]
EXPORT = ["convert", "--weights=zoo:target_senet", "--out=y.safetensors"]
COMMAND_LINES = [
    (["generat"], ["'generat'", "generate"]),
    (["--config.seed=1"], ["'--config.seed=1'", "generate"]),
    (["generate", "--nothing=1"], ["'nothing'", "--help"]),
    (["evaluate", "--nothing"], ["'nothing'", "--help"]),
    (["convert", "--config.seed=1"], ["'config.seed'", "--help"]),
    (["generate", "stray"], ["'stray'", "--name=value"]),
    (["evaluate", "--workdir=x", "--", "stray"], ["'stray'", "--name=value"]),
    (["convert", "stray"], ["'stray'", "--name=value"]),
    (["generate"], ["--workdir"]),
    (["generate", "--workdir="], ["--workdir"]),
    (["generate", "--workdir"], ["--workdir"]),
    (["evaluate"], ["--workdir"]),
    (["convert", f"--network={NETWORK}", "--out=x"], ["--weights"]),
    (["convert", "--weights=x", "--out=y"], ["--network"]),
    (["convert", "--weights=x", f"--network={NETWORK}"], ["--out"]),
    (["convert", "--weights=x", "--network=vgg", "--out=y"], ["'vgg'", NETWORK]),
    (["convert", "--weights=x.params", "--out=y"], ["--network or --symbol is missing"]),
    ([*ARRAYS, "--channels=RGB"], ["--channels means nothing for a file of named arrays"]),
    ([*ARRAYS, "--size=112"], ["--size means nothing for a file of named arrays"]),
    ([*EXPORT, f"--network={NETWORK}"], ["--network means nothing for the export"]),
    ([*EXPORT, "--key=a"], ["--key means nothing for the export"]),
    ([*EXPORT, "--channels=BGR"], ["--channels means nothing for the export"]),
    ([*EXPORT, "--size=96"], ["--size means nothing for the export"]),
]


@pytest.mark.parametrize("arguments, named", COMMAND_LINES, ids=lambda value: " ".join(value))
def test_command_line(opom, arguments, named):
    check_refused(opom(*arguments), *named)


def test_one_line_from_a_process_of_its_own(own):
    """Nothing that libraries log comes with it."""
    own = with_own_networks(own)
    damage_weights(own.network)
    workdir = own.root / "new"
    command = [sys.executable, "run.py", *own.generate(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"opom-jax generate: {own.network / 'params'} cannot be read")
    assert done.stderr.count("\n") == 1 and not workdir.exists()


# Configuration files and keys.

BASE = (
    "from opom_jax.cli.config import get_config as base\ndef get_config():\n    config = base()\n"
)
COPY = BASE + "    import ml_collections\n    values = config.to_dict()\n"
CONFIG_FILES = {
    "no Python": ("def get_config(:\n", "SyntaxError"),
    "no text": ("\0", "null bytes"),
    "an import that fails": ("import nothing_of_that_name\n", "nothing_of_that_name"),
    "no function": ("config = 1\n", "get_config"),
    "a function with arguments": ("def get_config(size):\n    pass\n", "argument"),
    "an error": (BASE + "    raise RuntimeError('too bad')\n", "RuntimeError: too bad"),
    "a ValueError": (BASE + "    raise ValueError('too bad')\n", "ValueError: too bad"),
    "an AttributeError": (BASE + "    config.get_steps()\n", "get_steps"),
    "a way out": (BASE + "    raise SystemExit(0)\n", "SystemExit"),
    "a dict": ("def get_config():\n    return {'steps': 1}\n", "must be"),
    "an unknown key": (BASE + "    config.stepz = 1\n    return config\n", "'stepz'"),
    "an unknown inner key": (BASE + "    config.data.rot = 1\n    return config\n", "'data.rot'"),
    "another type": (BASE + "    config.steps = 'x'\n    return config\n", "'steps'"),
    "a text for a tuple": (BASE + "    config.targets = 'x'\n    return config\n", "'targets'"),
    "a missing key": (
        COPY + "    del values['seed']\n    return ml_collections.ConfigDict(values)\n",
        "config.seed=None",
    ),
    "another type in its own dict": (
        COPY + "    values['epsilon'] = '8'\n    return ml_collections.ConfigDict(values)\n",
        "config.epsilon='8'",
    ),
}


@pytest.mark.parametrize("text, named", CONFIG_FILES.values(), ids=CONFIG_FILES)
def test_config_file(opom, tmp_path, text, named):
    (tmp_path / "own.py").write_text(text)
    answer = opom("generate", f"--config={tmp_path / 'own.py'}", f"--workdir={tmp_path / 'new'}")
    check_refused(answer, named)
    if "Unknown config key" not in answer.errors[0]:
        assert f"--config={tmp_path / 'own.py'}" in answer.errors[0]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["missing.py", "", "."])
def test_no_config_file(opom, tmp_path, name):
    path = tmp_path / name if name else ""
    answer = opom("evaluate", f"--config={path}", f"--workdir={tmp_path / 'new'}")
    check_refused(answer, f"--config={path}: the file cannot be loaded")


def test_config_file_after_its_overrides(world, opom, tmp_path):
    (tmp_path / "own.py").write_text(BASE + "    return config\n")
    answer = opom(*world.generate(tmp_path / "new"), f"--config={tmp_path / 'own.py'}")
    first = f"--config.surrogate={world.network}"
    check_refused(answer, f"own.py must come before {first}", "put it first")


def test_a_boolean_is_refused_in_words(world, opom, tmp_path):
    answer = opom(*world.generate(tmp_path / "new"), "--config.data.resize=maybe")
    check_refused(answer, "resize=maybe: must be true or false")
    answer = opom("models", "check", "x", "--resize=maybe")
    check_refused(answer, "resize=maybe: must be true or false")


VALUES = {
    "epsilon": ["nan", "inf", "-inf", "-1", "0", "255.1", "x", ""],
    "step_size": ["nan", "inf", "-1", "0", "255.1"],
    "momentum": ["nan", "inf", "-0.1", "1.1"],
    "dropout": ["nan", "inf", "-0.1", "1"],
    "lower": ["nan", "-inf", "-0.1", "1.1", "0.6"],
    "upper": ["nan", "inf", "-0.1", "1.1", "0.4"],
    "seed": ["-1", str(2**32), str(10**30), "1.5", "nan"],
    "steps": ["0", "-1", str(10**9), "1.5", "x"],
    "initial_steps": ["-1", str(10**12)],
    "people_per_batch": ["-1", "x"],
    "memory_gib": ["nan", "inf", "-1"],
    "method": ["convexhull", ""],
    "baseline": ["{}"],
    "baseline.iterations": ["1.5"],
    "form": ["x"],
    "precision": ["float64", "32"],
    "diverse": ["-1", "1", "101", "x"],
    "rounding": ["up"],
    "gallery": ["masked", ""],
    "surrogate": ["", ","],
    "data.list_format": ["csv"],
    "data.distractors_format": ["csv"],
    "data.pairs_format": ["csv"],
    "data.image_size": ["0", "-1", "100000"],
    "data.train_per_person": ["0", "-1"],
    "data.test_per_person": ["-1"],
    "data.limit": ["-1"],
    "data.resize": ["maybe"],
    "data": ["{}"],
    "data.people.name": ["x"],
    "stepz": ["1"],
    "data.rot": ["x"],
}
"""Key -> values that it must not have, for people with two photos."""


BASELINE_VALUES = {
    "iterations": ["0", str(10**9)],
    "epochs": ["0"],
    "photos_per_step": ["0"],
    "learning_rate": ["nan", "inf", "0"],
    "width": ["0"],
    "blocks": ["-1"],
}


@pytest.mark.parametrize("key, value", [(k, v) for k, vs in BASELINE_VALUES.items() for v in vs])
def test_value_of_a_baseline(world, opom, tmp_path, key, value):
    flags = ("--config.method=gap", f"--config.baseline.{key}={value}")
    check_refused(opom(*world.generate(tmp_path / "new", *flags)), f"config.baseline.{key}=")


def test_a_baseline_makes_one_mask(world, opom, tmp_path):
    flags = "--config.method=fi_uap_all", "--config.diverse=2"
    check_refused(opom(*world.generate(tmp_path / "new", *flags)), "diverse=2", "convex_hull")
    assert not (tmp_path / "new").exists()


def test_a_baseline_has_no_momentum(world, opom, tmp_path):
    flags = ("--config.method=fi_uap_all", "--config.momentum=1")
    check_refused(opom(*world.generate(tmp_path / "new", *flags)), "momentum", "fi_uap_all")


UNREAD = {
    "convex_hull": ["baseline.iterations", "baseline.epochs", "baseline.width"],
    "fi_uap_all": ["baseline.iterations", "baseline.photos_per_step"],
    "gd_uap": ["step_size", "steps", "form", "baseline.epochs", "baseline.learning_rate"],
    "gap": ["step_size", "steps", "start", "baseline.iterations"],
}
OTHERWISE = {"form": "paper", "start": "person"}


@pytest.mark.parametrize("method, key", [(m, key) for m, keys in UNREAD.items() for key in keys])
def test_a_key_that_the_method_does_not_read(world, opom, tmp_path, method, key):
    """Its default passes, and the next fault is heard of."""
    flags = [f"--config.method={method}", f"--config.{key}={OTHERWISE.get(key, 3)}"]
    command = [f for f in world.generate(tmp_path / "new") if "steps" not in f]
    said = f"config.{key}=.* means nothing for method {method}; leave it out"
    assert re.search(said, check_refused(opom(*command, *flags)))
    default = get_config()
    value = default.baseline[key.removeprefix("baseline.")] if "." in key else default[key]
    flags = [flags[0], f"--config.{key}={value}", "--config.surrogate="]
    check_refused(opom(*command, *flags), "config.surrogate is missing")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("key, value", [(key, v) for key, values in VALUES.items() for v in values])
def test_value(world, opom, tmp_path, key, value):
    answer = opom(*world.generate(tmp_path / "new", f"--config.{key}={value}"))
    check_refused(answer, key)
    assert not (tmp_path / "new").exists()


def test_coefficients_that_some_person_cannot_have(own, opom):
    """Two photos with at most a half each are enough, one is not."""
    for k in (1, 2, 3):
        (own.people / "b" / f"{k}.png").unlink()
    answer = opom(*own.generate(own.root / "new", "--config.upper=0.5"))
    check_refused(answer, "b has 1 photos", "upper=0.5", "change lower or upper")
    assert not (own.root / "new").exists()


# People and photos.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_no_people(world, opom, tmp_path):
    both = f"--config.data.train_list={tmp_path / 'list.txt'}"
    check_refused(opom(*world.generate(tmp_path / "new", both)), "data.people", "data.train_list")
    for test in ("test_list=list.txt", "test_per_person=3"):
        answer = opom(*world.generate(tmp_path / "new", f"--config.data.{test}"))
        check_refused(answer, f"config.data.{test} means nothing with config.data.people")
    neither = "--config.data.people="
    check_refused(
        opom(*world.generate(tmp_path / "new", neither)), "data.people", "data.train_list"
    )
    nowhere = f"--config.data.people={tmp_path / 'nowhere'}"
    check_refused(opom(*world.generate(tmp_path / "new", nowhere)), tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    empty = f"--config.data.people={tmp_path / 'empty'}"
    check_refused(opom(*world.generate(tmp_path / "new", empty)), tmp_path / "empty")
    assert not (tmp_path / "new").exists()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere.png"))


PHOTOS = {
    "cut": (cut, "replace the file"),
    "empty": (lambda path: path.write_bytes(b""), "replace the file"),
    "no image": (lambda path: path.write_text("hello"), "replace the file"),
    "other size": (lambda path: Image.new("RGB", (96, 112)).save(path), "96 x 112"),
    "16 bits": (lambda path: Image.new("I;16", (112, 112)).save(path), "8 bits"),
    "a link to nowhere": (replace_by_link, "does not exist"),
}


@pytest.mark.parametrize("damage, named", PHOTOS.values(), ids=PHOTOS)
def test_photo(own, opom, damage, named):
    damage(own.people / "b" / "1.png")
    check_refused(opom(*own.generate(own.root / "new")), own.people / "b" / "1.png", named)
    assert not (own.root / "new").exists()
    before = files(own.root / "run")
    check_refused(opom(*own.evaluate(own.root / "run")), own.people / "b" / "1.png", named)
    assert files(own.root / "run") == before


def test_a_person_without_photos(own, opom):
    shutil.rmtree(own.people / "b")
    (own.people / "b").mkdir()
    check_refused(opom(*own.generate(own.root / "new")), own.people / "b")
    assert not (own.root / "new").exists()


LISTS = {
    "no lines": (b"\n \n", [], "'{path}' is empty"),
    "no text": (b"\xff\xfe\x00", [], "line 1 of '{path}'"),
    "a missing photo": (b"a/0.png\na/9.png\n", [], "line 2 of '{path}'"),
    "a folder": (b"a/0.png\na\n", [], "line 2 of '{path}'"),
    "a way out": (b"a/0.png\n../people/a/1.png\n", [], "line 2 of '{path}'"),
    "an absolute path": (b"a/0.png\n/a/1.png\n", [], "line 2 of '{path}'"),
    "a third photo": (
        b"a/0.png\na/1.png\na/2.png\n",
        [],
        "'{path}' has 3 photos, not a multiple of 2",
    ),
    "one column": (b"a/0.png\n", ["--config.data.list_format=megaface"], "line 1 of '{path}'"),
    "fewer test people": (
        b"a/0.png\na/1.png\nb/0.png\nb/1.png\n",
        ["--config.data.test_list={path}", "--config.data.test_per_person=4"],
        "'{path}' has 2 people but",
    ),
    "a negative number of test photos": (
        b"a/0.png\na/1.png\n",
        ["--config.data.test_list={path}", "--config.data.test_per_person=-1"],
        "test_per_person",
    ),
    "no test list": (b"a/0.png\na/1.png\n", ["--config.data.test_list={path}.not"], "{path}.not"),
}


@pytest.mark.parametrize("text, flags, named", LISTS.values(), ids=LISTS)
def test_list(world, opom, tmp_path, text, flags, named):
    path = tmp_path / "list.txt"
    path.write_bytes(text)
    lists = [f"--config.data.root={world.people}", f"--config.data.train_list={path}"]
    lists += [flag.format(path=path) for flag in flags]
    answer = opom(*world.generate(tmp_path / "new", "--config.data.people=", *lists))
    check_refused(answer, named.format(path=path))
    assert not (tmp_path / "new").exists()


def test_no_list(world, opom, tmp_path):
    path = tmp_path / "nowhere.txt"
    flags = ["--config.data.people=", f"--config.data.train_list={path}"]
    check_refused(opom(*world.generate(tmp_path / "new", *flags)), path, "readable list")


# Networks.


def edit_card(**changes):
    def edit(folder: Path) -> None:
        path = folder / "card.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_shape(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    edit_card(shapes=card["shapes"] | {"head/kernel": [1, 1, 256, 127]})(folder)


def drop(name: str):
    def remove(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        del card[name]
        (folder / "card.json").write_text(json.dumps(card))

    return remove


def biggest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)


def damage_weights(folder: Path) -> None:
    cut(biggest(folder / "params"))


def flip_bytes(folder: Path) -> None:
    path = biggest(folder / "params")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def take_other_weights(folder: Path) -> None:
    shutil.rmtree(folder / "params")
    shutil.copytree(folder.parent / "other" / "params", folder / "params")


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("hello")


NETWORKS = {
    "missing": (shutil.rmtree, "convert verb"),
    "a file": (replace_by_file, "card.json"),
    "without card": (lambda folder: (folder / "card.json").unlink(), "convert verb"),
    "with a cut card": (lambda folder: cut(folder / "card.json"), "card.json"),
    "with a card that is no text": (
        lambda folder: (folder / "card.json").write_bytes(b"\xff"),
        "card.json",
    ),
    "with a card that is a list": (
        lambda folder: (folder / "card.json").write_text("[]"),
        "card.json",
    ),
    "with a bottomless card": (
        lambda folder: (folder / "card.json").write_text("[" * 100_000),
        "card.json",
    ),
    "with a card without network": (drop("network"), "card.json"),
    "with a card without shapes": (drop("shapes"), "card.json"),
    "with a card without digest": (drop("weights_sha256"), "card.json"),
    "of an unknown kind": (edit_card(network="vgg"), "'vgg'"),
    "of a kind that is a list": (edit_card(network=[NETWORK]), "card.json"),
    "of another kind": (edit_card(network="ir_tiny"), "card.json"),
    "of another preprocessing": (edit_card(preprocessing={"size": 1}), "preprocessing"),
    "of other shapes": (edit_shape, "shapes"),
    "of another digest": (edit_card(weights_sha256="0" * 64), "params"),
    "with other weights": (take_other_weights, "params"),
    "without weights": (lambda folder: shutil.rmtree(folder / "params"), "params"),
    "with a file for weights": (lambda folder: replace_by_file(folder / "params"), "params"),
    "with cut weights": (damage_weights, "params"),
    "with turned bits": (flip_bytes, "params"),
}


@pytest.mark.parametrize("damage, named", NETWORKS.values(), ids=NETWORKS)
def test_network(own, opom, damage, named):
    own = with_own_networks(own)
    damage(own.network)
    sentence = check_refused(opom(*own.generate(own.root / "new")), own.network, named)
    assert "convert" in sentence and not (own.root / "new").exists()


# Weights to convert.


class Malicious:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def convert(path: Path, out: Path, *flags: str) -> list[str]:
    return ["convert", f"--weights={path}", f"--network={NETWORK}", f"--out={out}", *flags]


@pytest.mark.parametrize("content", [None, b"", b"hello", bytes(1000), b"PK\x03\x04", "folder"])
def test_weights(opom, tmp_path, content):
    path, out = tmp_path / "weights.pth", tmp_path / "out"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    before = set(tmp_path.iterdir())
    check_refused(opom(*convert(path, out)), path)
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def onnx_file(tmp_path) -> Path:
    """Of a network that makes 4 numbers of an image of 2 x 2."""
    sides = {"x": [1, 3, 2, 2], "y": [1, 4]}
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in sides.items())
    layers = [helper.make_node("Flatten", ["x"], ["flat"])]
    layers.append(helper.make_node("Gemm", ["flat", "weights"], ["y"]))
    weights = onnx.numpy_helper.from_array(np.eye(12, 4, dtype=np.float32), "weights")
    graph = helper.make_graph(layers, "net", [x], [y], [weights])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_size_other_than_the_files_own(opom, onnx_file, tmp_path):
    command = ["convert", f"--weights={onnx_file}", "--scaling=none", f"--out={tmp_path / 'out'}"]
    check_refused(opom(*command, "--size=96"), onnx_file, "images of 2 x 2", "leave --size=96 out")
    assert not (tmp_path / "out").exists()


def test_a_graph_has_no_taps_for_gd_uap(world, opom, onnx_file, tmp_path):
    graph = world._replace(network=tmp_path / "graph")
    command = [f"--weights={onnx_file}", "--scaling=none", f"--out={graph.network}"]
    assert opom("convert", *command).code == 0
    flags = "--config.method=gd_uap", "--config.steps=16"  # which it does not read
    answer = opom(*graph.generate(tmp_path / "new", *flags))
    check_refused(answer, "graph has no taps, which gd_uap needs")
    assert not (tmp_path / "new").exists()


KINDS = {"h5": "Keras weights", "params": "MXNet", "onnx": "ONNX", "pth": "torch checkpoint"}


@pytest.mark.parametrize("kind, named", KINDS.items(), ids=KINDS)
def test_weights_of_no_kind(opom, tmp_path, kind, named):
    """The mend is for what the name says."""
    path, out = tmp_path / f"weights.{kind}", tmp_path / "out"
    command = ["convert", f"--weights={path}", f"--out={out}"]
    command += [] if kind == "onnx" else [f"--network={NETWORK}"]
    path.write_text("What has been written here is text.\n")
    check_refused(opom(*command), path, named)
    path.write_bytes(b"")
    check_refused(opom(*command), f"{path} is empty", "fetch it again")


@pytest.mark.parametrize("name", ["nowhere.json", "folder"])
def test_no_symbol_file(opom, tmp_path, name):
    (tmp_path / "folder").mkdir()
    weights = goodfiles.params_file(tmp_path / "net.params", {})
    command = [f"--weights={weights}", f"--symbol={tmp_path / name}", f"--out={tmp_path / 'out'}"]
    check_refused(opom("convert", *command), tmp_path / name, "symbol file of MXNet")


def test_malicious_weights(opom, tmp_path):
    path, marker = tmp_path / "weights.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"conv1.conv.weight": Malicious(marker)}))
    check_refused(opom(*convert(path, tmp_path / "out")), path, "system")
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]
    pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have run


@pytest.fixture
def torch_file(tmp_path) -> Path:
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    wrong = {"conv1.conv.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(2)}
    torch.save({"state_dict": wrong}, path)
    return path


def test_cut_weights(opom, torch_file, tmp_path):
    cut(torch_file)
    check_refused(opom(*convert(torch_file, tmp_path / "out")), torch_file)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network(opom, torch_file, tmp_path):
    answer = opom(*convert(torch_file, tmp_path / "out"))
    sentence, *names = answer.errors
    assert answer.code == 2 and answer.out == ""
    assert str(torch_file) in sentence and "check --network and --prefix" in sentence
    *names, rest = names
    assert names == sorted(names) and len(names) == 20
    assert names[:2] == [
        " ! conv1.conv.weight (3, 3), wanted for stem/conv/kernel (3, 3, 3, 32)",
        " + fc.weight (2,)",
    ]
    missing = set(recognizer.abstract_params(NETWORK)) - {"stem/conv/kernel"}
    assert {name.split()[1] for name in names[2:]} < missing
    assert all(name.startswith(" - ") for name in names[2:])
    assert rest == f" and {len(missing) - 18} more"
    assert set(tmp_path.iterdir()) == {torch_file}


def test_weights_under_another_key(opom, torch_file, tmp_path):
    answer = opom(*convert(torch_file, tmp_path / "out", "--key=model"))
    check_refused(answer, torch_file, "'model'", "choose from 'state_dict'")


def test_a_key_of_a_file_without_groups(opom, tmp_path):
    path = goodfiles.safetensors_file(tmp_path / "net.safetensors")
    answer = opom(*convert(path, tmp_path / "out", "--key=nope"))
    check_refused(answer, path, "no tensors under 'nope'; leave --key out")


@pytest.mark.parametrize("name", ["full", "file", "file/below"])
def test_out_that_cannot_be_made(opom, torch_file, tmp_path, monkeypatch, name):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    right = {path: np.zeros(v.shape) for path, v in recognizer.abstract_params(NETWORK).items()}
    monkeypatch.setattr("converters.convert.translate", lambda *_: right)
    before = files(tmp_path)
    check_refused(opom(*convert(torch_file, tmp_path / name)), tmp_path / name)
    assert files(tmp_path) == before


def test_no_room_for_a_network(opom, torch_file, tmp_path, monkeypatch):
    """Orbax says so by a ValueError."""

    def fail(*_):
        raise ValueError("OUT_OF_RANGE: No space left on device\nSource: somewhere")

    right = {path: np.zeros(v.shape) for path, v in recognizer.abstract_params(NETWORK).items()}
    monkeypatch.setattr("converters.convert.translate", lambda *_: right)
    monkeypatch.setattr(recognizer.ocp.StandardCheckpointer, "save", fail)
    check_refused(opom(*convert(torch_file, tmp_path / "out")), tmp_path / "out", "No space left")
    assert set(tmp_path.iterdir()) == {torch_file}


# Folders of masks.

DIFFERENT = {
    "settings.seed: 0 there, 1 here": ["--config.seed=1"],
    "settings.method": ["--config.method=fi_uap"],
    "settings.epsilon: 8.0 there, 4.0 here": ["--config.epsilon=4"],
    "precision": ["--config.precision=bfloat16"],
    "people_per_batch: 1 there, 2 here": ["--config.people_per_batch=2"],
    "people: 3 there, 2 here": ["--config.data.limit=2"],
    "people_sha256": ["--config.data.train_per_person=1"],
    "surrogate.weights_sha256": ["--config.surrogate={other}"],
}


@pytest.mark.parametrize("named, flags", DIFFERENT.items(), ids=DIFFERENT)
def test_masks_of_another_configuration(world, opom, finished, named, flags):
    before = files(finished)
    flags = [flag.format(other=world.other) for flag in flags]
    answer = opom(*world.generate(finished, *flags))
    check_refused(answer, finished / "config.json", named, "use another --workdir")
    assert files(finished) == before


def test_another_configuration_is_found_before_photos_are_looked_at(world, opom, finished, own):
    (own.people / "c" / "0.png").write_bytes(b"")
    broken = world._replace(people=own.people)
    check_refused(opom(*broken.generate(finished, "--config.seed=1")), "settings.seed")
    check_refused(opom(*broken.generate(finished)), "c/0.png")


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_workdir_that_cannot_be_made(world, opom, tmp_path, name):
    (tmp_path / "file").write_text("kept")
    answer = opom(*world.generate(tmp_path / name))
    check_refused(answer, tmp_path / name, "choose another --workdir")
    assert files(tmp_path) == {"file": b"kept"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_workdir_that_cannot_be_written(world, opom, own):
    (own.root / "locked").mkdir(mode=0o500)
    check_refused(opom(*world.generate(own.root / "locked")), own.root / "locked")
    (own.root / "run").chmod(0o500)
    check_refused(opom(*world.evaluate(own.root / "run")), own.root / "run")


@pytest.mark.parametrize("batch", [0, 1])  # one is looked up there
def test_masks_of_an_unknown_configuration_are_not_added_to(own, opom, batch):
    (own.root / "run" / "config.json").write_text('{"settings": {')
    before = files(own.root / "run")
    answer = opom(*own.generate(own.root / "run", f"--config.people_per_batch={batch}"))
    check_refused(
        answer, own.root / "run" / "config.json", "cannot be read", "use another --workdir"
    )
    assert files(own.root / "run") == before


def test_masks_from_elsewhere_are_not_added_to(own, opom):
    before = files(own.root / "run")
    check_refused(opom(*own.generate(own.root / "run")), own.root / "run", "no config.json")
    assert files(own.root / "run") == before


# What evaluate reads.


def lie_about_size(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(3, 112, 112), }      ", b"(3, 112000, 112000), }"))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def store(array, **options):
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, array, **options)

    return write


def archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, np.zeros(RIGHT, np.float32))


MASKS = {
    "missing": (Path.unlink, "run generate to its end"),
    "empty": (lambda path: path.write_bytes(b""), "no mask file"),
    "cut": (cut, "no mask file"),
    "text": (lambda path: path.write_text("hello"), "no mask file"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1])), "no mask file"),
    "objects": (store(np.full(RIGHT, None), allow_pickle=True), "no mask file"),
    "archive": (archive, "no mask file"),
    "folder": (replace_by_folder, "no mask file"),
    "a header that lies": (lie_about_size, "no mask file"),
    "transposed": (store(np.zeros((112, 112, 3), np.float32)), "(112, 112, 3)"),
    "too small": (store(np.zeros((3, 111, 112), np.float32)), "(3, 111, 112)"),
    "a number": (store(np.float32(1)), "float32()"),
    "integers": (store(np.zeros(RIGHT, np.uint8)), "uint8"),
    "complex": (store(np.zeros(RIGHT, np.complex64)), "complex64"),
    "NaN": (store(np.full(RIGHT, np.nan, np.float32)), "not finite"),
    "infinite": (store(np.full(RIGHT, -np.inf, np.float32)), "not finite"),
}


@pytest.mark.parametrize("damage, named", MASKS.values(), ids=MASKS)
def test_mask(own, opom, damage, named):
    path = own.root / "run" / "masks" / "mask_id1.npy"
    damage(path)
    before = files(own.root / "run")
    check_refused(opom(*own.evaluate(own.root / "run")), path, named)
    assert files(own.root / "run") == before


TARGETS = {
    "(1,2)": "config.targets=(1, 2) must be names of folders",
    "(('zoo:target_senet',),)": "must be names of folders",
    "('zoo:target_senet'": "brackets or quotes are not closed",
    "(zoo:target_senet,zoo:target_sface)": "a name in brackets has no quotes",
    "'zoo:target_senet": "brackets or quotes are not closed",
}


@pytest.mark.parametrize("value, named", TARGETS.items(), ids=TARGETS)
def test_targets_that_are_no_names(own, opom, value, named):
    answer = opom("evaluate", f"--workdir={own.root / 'run'}", f"--config.targets={value}")
    check_refused(answer, named, "write --config.targets=NETWORK,NETWORK")


def test_mask_beyond_its_epsilon(own, opom):
    (own.root / "run" / "config.json").write_text('{"settings": {"epsilon": 8.0}}')
    path = own.root / "run" / "masks" / "mask_id1.npy"
    np.save(path, np.full(RIGHT, -8.01, np.float32))
    check_refused(opom(*own.evaluate(own.root / "run")), path, "8.01", "epsilon=8 of")
    np.save(path, np.full(RIGHT, -8.0005, np.float32))  # rounding: the next one is looked at
    path.with_name("mask_id2.npy").unlink()
    check_refused(opom(*own.evaluate(own.root / "run")), "mask_id2.npy is missing")


PAIRS = "a/1.png a/2.png 1\na/1.png b/1.png 0\n"
FOUND = "{root}/pairs.txt"


def write_text(name: str, text: str):
    return lambda own: (own.root / "run" / name).write_text(text)


def copy_network(own) -> None:
    shutil.copytree(own.network, own.root / "mean")


def copy_damaged(own) -> None:
    damage_weights(Path(shutil.copytree(own.other, own.root / "third")))


EVALUATIONS = {
    "no masks": (lambda own: shutil.rmtree(own.root / "run"), [], ["mask_id0.npy is missing"]),
    "a damaged configuration": (
        write_text("config.json", "{"),
        [],
        ["config.json cannot be read", "in another --workdir, or remove it"],
    ),
    "a list for a configuration": (
        write_text("config.json", "[]"),
        [],
        ["config.json cannot be read", "in another --workdir, or remove it"],
    ),
    "no number of masks": (write_text("config.json", '{"diverse": "2"}'), [], ["diverse='2'"]),
    "a damaged line": (write_text("metrics.jsonl", '{"id'), [], ["metrics.jsonl"]),
    "masks of others": (
        write_text("metrics.jsonl", '{"id": 0, "name": "z", "photos": 2}\n'),
        [],
        ["mask_id0.npy", "made from", "of z, not from"],
    ),
    "one probe": (None, ["--config.data.train_per_person=3"], ["a has 1 test photos"]),
    "no probes": (None, ["--config.data.train_per_person=9"], ["a has 0 test photos"]),
    "no targets": (None, ["--config.targets="], ["config.targets"]),
    "the same target twice": (None, ["--config.targets={network}"], ["'network' twice"]),
    "two of one name": (None, ["--config.targets={network}/../other"], ["'other' twice"]),
    "a missing target": (None, ["--config.targets={root}/nowhere"], ["nowhere", "convert"]),
    "a target called mean": (copy_network, ["--config.targets={root}/mean"], ["'mean'"]),
    "distractors not named": (None, ["--config.data.distractors="], ["config.data.distractors"]),
    "missing distractors": (None, ["--config.data.distractors={root}/nowhere"], ["nowhere"]),
    "no distractors": (
        lambda own: (own.root / "empty").mkdir(),
        ["--config.data.distractors={root}/empty"],
        ["empty", "no images"],
    ),
    "a damaged distractor": (
        lambda own: cut(own.distractors / "3.png"),
        [],
        ["distractors/3.png", "replace the file"],
    ),
    "no list of pairs": (None, ["--config.data.pairs=" + FOUND], [FOUND, "readable list"]),
    "a bad pair": (
        write_text("../pairs.txt", PAIRS + "\na/1.png b/1.png maybe\n"),
        ["--config.data.pairs=" + FOUND],
        [f"line 4 of '{FOUND}'", "1 or 0"],
    ),
    "a pair of which nobody has a mask": (
        write_text("../pairs.txt", PAIRS + "c/1.png b/1.png 0\n"),
        ["--config.data.pairs=" + FOUND, "--config.data.limit=2"],
        [f"line 3 of '{FOUND}'", "c/1.png", "none of the 2 people"],
    ),
    "a damaged photo of a pair": (
        lambda own: (
            write_text("../pairs.txt", PAIRS + "b/1.png c/0.png 0\n")(own),
            cut(own.people / "c" / "0.png"),
        ),
        ["--config.data.pairs=" + FOUND],
        ["c/0.png", "replace the file"],
    ),
    "a damaged target": (copy_damaged, ["--config.targets={root}/third"], ["third/params"]),
}


@pytest.mark.parametrize("damage, flags, named", EVALUATIONS.values(), ids=EVALUATIONS)
def test_evaluate(own, opom, damage, flags, named):
    command = own.evaluate(own.root / "run")
    if damage:
        damage(own)
    if any("targets=" in flag for flag in flags) and "twice" not in named[0]:
        command = [part for part in command if "targets=" not in part]
    before = files(own.root)
    flags = [flag.format(root=own.root, network=own.network) for flag in flags]
    named = [name.format(root=own.root) for name in named]
    check_refused(opom(*command, *flags), *named)
    assert files(own.root) == before
