"""models: the list, downloads from a server of this test, and figures of networks on faces."""

import csv
import hashlib
import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from converters import catalogue, fetch
from converters.catalogue import PUBLIC, File, Public
from converters.listing import rows, scaling
from opom_jax.cli import models
from opom_jax.networks import recognizer
from opom_jax.networks.recognizer import abstract_params
from opom_jax.networks.registry import NETWORKS
from tests.cli.conftest import save_broken

ROOT = Path(__file__).resolve().parents[2]
SIZE, NUMBERS = 8, 5
REPOSITORY, COMMIT = "some/body", "0" * 40
TARGET = f"/{REPOSITORY}/{COMMIT}/deep/net.onnx"


@pytest.fixture(scope="module")
def content() -> bytes:
    """An ONNX file of a network that takes images of 8 x 8."""
    draw = np.random.default_rng(0)
    arrays = {
        "kernel": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "dense": draw.normal(size=(NUMBERS, 4 * SIZE * SIZE)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "dense"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, NUMBERS])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph).SerializeToString()


class Server(ThreadingHTTPServer):
    """Serves one file from the memory.

    Attributes:
      content: the file.
      cut: bytes after which an answer stops; None sends all.
      ranges: whether it goes on in the middle.
      shift: added to the first byte of a range that is asked for: an answer to something else.
      length: whether the size is said.
      status: other than 200, instead of the file.
      moved: where to redirect to.
      stall: seconds before the answer.
      asked: the Range of every request, None without.
    """

    daemon_threads = True
    cut = moved = None
    ranges = length = True
    shift = stall = 0
    status = 200

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.asked = content, []

    def handle_error(self, request, client_address):
        """Clients hang up here; that is not worth a traceback."""

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers["Range"])
        if self.path != TARGET or server.status != 200:
            return self.send_error(server.status if server.status != 200 else 404)
        time.sleep(server.stall)
        if server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved)
            return self.end_headers()
        first = 0
        if server.ranges and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")):
            first = int(asked[1]) + server.shift
            if first >= len(server.content):
                return self.send_error(416)
            self.send_response(206)
            last = len(server.content)
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{last}")
        else:
            self.send_response(200)
        if server.length:
            self.send_header("Content-Length", str(len(server.content) - first))
        self.end_headers()
        self.wfile.write(server.content[first : server.cut])
        return None


@pytest.fixture
def server(content):
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def entry(content: bytes) -> Public:
    file = File("deep/net.onnx", len(content), hashlib.sha256(content).hexdigest())
    return Public(REPOSITORY, COMMIT, "MIT", (file,), 0.0, "", "ONNX", "-1..1", NUMBERS)


@pytest.fixture
def cache(tmp_path, monkeypatch, server, content) -> Path:
    """The empty cache folder; `tiny` can be fetched from the server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "HOST", server.host)
    monkeypatch.setattr(fetch, "SCHEMES", ("https", "http"))
    monkeypatch.setitem(PUBLIC, "tiny", entry(content))
    monkeypatch.setitem(catalogue.PARAMETERS, "tiny", 1)
    return tmp_path / "cache" / "opom-jax"


def part_of(cache: Path) -> Path:
    return cache / "downloads" / "tiny" / "net.onnx.part"


def check_fetched(answer, cache: Path) -> None:
    assert (answer.code, answer.errors) == (0, [])
    assert answer.out == f"models:tiny fetched from some/body (licence: MIT): {cache}/models/tiny\n"
    assert not part_of(cache).exists()


def check_refused(answer, cache: Path, *named: str) -> None:
    """One sentence on standard error, exit code 2, no network."""
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.errors
    for word in ("opom-jax models: ", *named):
        assert word in line
    assert not cache.exists() or not list((cache / "models").glob("*"))


# fetch


def test_fetched_network_is_used_like_any(opom, cache, server, content):
    check_fetched(opom("models", "fetch", "tiny"), cache)
    network = recognizer.load("models:tiny")
    assert network.name == "tiny" and network.spec.embedding == NUMBERS
    image = np.random.default_rng(1).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    dense, kernel = (
        numpy_helper.to_array(a)
        for name in ("dense", "kernel")
        for a in onnx.load_from_string(content).graph.initializer
        if a.name == name
    )
    x = np.pad(image[0] / 127.5 - 1, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))
    wanted = dense @ np.einsum("hwcij,ocij->ohw", windows, kernel).ravel()
    found = jax.jit(network.embed)(network.params, image)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    for folder in (cache / "models", cache / "downloads"):
        assert folder.stat().st_mode & 0o777 == 0o700
    source = json.loads((cache / "models" / "tiny" / "card.json").read_text())["source"]
    assert source == {"file": "net.onnx", "sha256": hashlib.sha256(content).hexdigest()}

    server.asked.clear()
    again = opom("models", "fetch", "tiny")
    assert (again.code, again.errors, server.asked) == (0, [], [])
    assert again.out == f"models:tiny is there already: {cache}/models/tiny\n"


def test_an_interrupted_transfer_goes_on(opom, cache, server, content):
    server.cut = 1000
    answer = opom("models", "fetch", "tiny")
    check_refused(answer, cache, f"stopped after 1000 of {len(content)} bytes", "same command")
    assert part_of(cache).read_bytes() == content[:1000]
    server.cut = None
    check_fetched(opom("models", "fetch", "tiny"), cache)
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    "server_is",
    [{"ranges": False}, {"shift": 7}, {"shift": 10**6}, {"length": False}],
    ids=["without ranges", "another range", "too short", "without length"],
)
def test_a_server_that_does_not_go_on(opom, cache, server, content, server_is):
    part_of(cache).parent.mkdir(parents=True, mode=0o700)
    part_of(cache).write_bytes(content[:100])
    for folder in (cache, cache / "downloads"):
        folder.chmod(0o700)
    for name, value in server_is.items():
        setattr(server, name, value)
    check_fetched(opom("models", "fetch", "tiny"), cache)
    assert server.asked[0] == "bytes=100-"


@pytest.mark.parametrize("more", [0, 1, 1000])
def test_a_part_that_is_long_enough(opom, cache, server, content, more):
    """All bytes, the wrong ones: refused and gone; more than all: the transfer starts over."""
    private(cache / "downloads" / "tiny")
    part_of(cache).write_bytes(b"x" * (len(content) + more))
    answer = opom("models", "fetch", "tiny")
    if more:
        check_fetched(answer, cache)
        assert server.asked == [None]
    else:
        check_refused(answer, cache, "SHA-256")
        assert server.asked == [] and not part_of(cache).exists()


def private(folder: Path) -> None:
    folder.mkdir(parents=True)
    for own in (folder, *folder.parents[:2]):
        own.chmod(0o700)


def test_another_file(opom, cache, server, content):
    server.content = bytes([content[0] ^ 1]) + content[1:]
    check_refused(opom("models", "fetch", "tiny"), cache, "another file", "SHA-256", server.host)
    assert not list((cache / "downloads" / "tiny").iterdir())
    server.content = content
    check_fetched(opom("models", "fetch", "tiny"), cache)


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("change", [lambda c: c + b"x" * 10**6, lambda c: c[:-1]])
def test_another_size(opom, cache, server, content, length, change):
    server.content, server.length = change(content), length
    answer = opom("models", "fetch", "tiny")
    if length or len(server.content) > len(content):
        check_refused(answer, cache, f"not the {len(content)} bytes")
        assert not part_of(cache).exists()
    else:  # it cannot be told from an interruption
        check_refused(answer, cache, "stopped after")


def test_offline_then_by_hand(opom, cache, monkeypatch, content):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(catalogue, "HOST", closed)
    path = cache / "downloads" / "tiny" / "net.onnx"
    answer = opom("models", "fetch", "tiny")
    check_refused(answer, cache, closed + TARGET, "cannot be fetched", "by hand", str(path))
    path.write_bytes(b"another")
    check_refused(opom("models", "fetch", "tiny"), cache, str(path), "SHA-256", "remove it")
    assert path.read_bytes() == b"another"
    path.write_bytes(content)
    check_fetched(opom("models", "fetch", "tiny"), cache)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses(opom, cache, server, status):
    server.status = status
    check_refused(opom("models", "fetch", "tiny"), cache, f"HTTP status {status}", TARGET)


def test_a_server_that_does_not_answer(opom, cache, server, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    server.stall = 1
    check_refused(opom("models", "fetch", "tiny"), cache, "no answer in", "by hand")


@pytest.mark.parametrize(
    "moved, said",
    [
        (None, "is not https"),
        ("ftp://127.0.0.1/net.onnx", "ftp://127.0.0.1/net.onnx is not https"),
        ("file:///etc/passwd", "HTTP status 302"),  # urllib's own answer
    ],
)
def test_only_https(opom, cache, server, monkeypatch, moved, said):
    """Neither the address nor a redirection may lead elsewhere."""
    server.moved = moved
    if moved is None:
        monkeypatch.setattr(fetch, "SCHEMES", ("https",))
    check_refused(opom("models", "fetch", "tiny"), cache, said)
    assert len(server.asked) == (0 if moved is None else 1)


@pytest.mark.parametrize(
    "name, named",
    [
        ("mobilefacenet_xiaocer", ["did you mean mobilefacenet_xiaoccer"]),
        ("../tiny", ["did you mean"]),
        ("ir_50", ["no public place", "backbone_ir50_*.pth", "convert --network=ir_50"]),
        ("ir_small", ["train --config.network=ir_small"]),
    ],
)
def test_names_that_cannot_be_fetched(opom, cache, server, name, named):
    check_refused(opom("models", "fetch", name), cache, name.removeprefix("../"), *named)
    assert server.asked == [] and not cache.exists()


def test_a_file_that_cannot_be_converted(opom, cache, server, monkeypatch, content):
    server.content = content[:-50]
    monkeypatch.setitem(PUBLIC, "tiny", entry(server.content))
    check_refused(opom("models", "fetch", "tiny"), cache, "net.onnx")


@pytest.mark.parametrize("name", ["models", "downloads"])
def test_a_cache_that_cannot_be_used(opom, cache, server, name):
    """A file in its place; a folder that others may write to."""
    cache.mkdir(parents=True)
    (cache / name).write_text("kept")
    answer = opom("models", "fetch", "tiny")
    assert answer.code == 2 and "XDG_CACHE_HOME" in answer.errors[0] and server.asked == []
    assert (cache / name).read_text() == "kept"
    (cache / name).unlink()
    (cache / name).mkdir(mode=0o777)
    (cache / name).chmod(0o777)
    check_refused(opom("models", "fetch", "tiny"), cache / "none", str(cache / name), "700")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(opom, cache, server):
    cache.parent.mkdir(mode=0o500)
    check_refused(opom("models", "fetch", "tiny"), cache, "XDG_CACHE_HOME")


def test_two_at_once(opom, cache):
    from opom_jax.files import held

    private(cache / "downloads" / "tiny")
    with held(cache / "downloads" / "tiny"):
        check_refused(opom("models", "fetch", "tiny"), cache, "Another process")
    check_fetched(opom("models", "fetch", "tiny"), cache)


KILLED = """
    import sys
    from converters import catalogue, fetch
    from converters.catalogue import PUBLIC, File, Public
    from opom_jax import cli

    host, size, sha256 = sys.argv[1:]
    catalogue.HOST, fetch.SCHEMES, fetch.CHUNK = host, ("http",), 100
    file = File("deep/net.onnx", int(size), sha256)
    PUBLIC["tiny"] = Public("some/body", "0" * 40, "MIT", (file,), 0.0, "", "ONNX", "-1..1", 5)
    cli.main(["opom-jax", "models", "fetch", "tiny"])
"""


def test_killed_in_the_middle(opom, cache, server, content):
    """What came is kept, and there is no network until all is there."""
    half, wait = len(content) // 2, threading.Event()
    write = Handler.do_GET

    def stalling(handler):
        server.cut = half
        write(handler)
        handler.wfile.flush()
        wait.wait(60)

    file = entry(content).files[0]
    command = [sys.executable, "-c", textwrap.dedent(KILLED), server.host]
    Handler.do_GET = stalling
    child = subprocess.Popen([*command, str(file.size), file.sha256], cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while not (part_of(cache).exists() and part_of(cache).stat().st_size):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        wait.set()
        Handler.do_GET = write
    assert list((cache / "models").iterdir()) == []
    assert part_of(cache).stat().st_size <= half
    server.cut = None
    check_fetched(opom("models", "fetch", "tiny"), cache)


def test_what_a_killed_conversion_left(opom, cache):
    left = cache / "models" / f".tiny.{10**7}.partial"  # a number that no process has
    private(left)
    (left / "card.json").write_text("{}")
    assert recognizer.on_shelf(cache / "models") == []
    check_fetched(opom("models", "fetch", "tiny"), cache)
    assert [path.name for path in (cache / "models").iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", ["models:none", "models:", "models:../tiny", "models:.tiny"])
def test_a_network_that_was_not_fetched(cache, name):
    with pytest.raises(recognizer.InputError, match="models fetch.*none is there yet, see"):
        recognizer.load(name)


# list


def table(opom) -> dict[str, dict]:
    answer = opom("models", "list", "--format=json")
    assert answer.code == 0
    return {row["name"]: row for row in json.loads(answer.out)}


def test_list_has_every_network(opom, cache):
    before = table(opom)
    zoo = {f"zoo:{path.parent.name}" for path in recognizer.ZOO.glob("*/card.json")}
    assert before.keys() == {*NETWORKS, *PUBLIC, *zoo}
    assert {name for name, row in before.items() if row["here"]} == zoo
    for name, row in before.items():
        assert row["family"] and row["get"] and row["parameters"] > 0
        spec = NETWORKS.get(name)
        assert spec is None or row["embedding"] == spec.embedding
    assert before["mobilefacenet_xiaoccer"]["input"] == "112x96"
    assert before["ir_50"]["preprocessing"] == "RGB, (x-127.5)/12.8"
    assert before["tiny"]["preprocessing"] == "RGB, -1..1"

    check_fetched(opom("models", "fetch", "tiny"), cache)
    assert table(opom) == before | {"tiny": before["tiny"] | {"here": True}}


def test_other_formats_say_the_same(opom, cache):
    wanted = table(opom)
    rows = csv.DictReader(io.StringIO(opom("models", "list", "--format=csv").out))
    assert {row["name"]: row for row in rows} == {
        name: {key: str(value) for key, value in row.items()} for name, row in wanted.items()
    }
    for command in (["models", "list"], ["models", "--action=list", "--format=text"]):
        text = opom(*command).out
        assert all(f"\n{name} " in text for name in wanted)
        assert max(map(len, text.splitlines())) <= 80


def test_the_page_is_what_the_command_prints(opom):
    answer = opom("models", "list", "--format=markdown")
    page = (ROOT / "docs" / "networks.md").read_text()
    assert page == answer.out, "run: python run.py models list --format=markdown > docs/networks.md"


DEEP = 20_000_000  # weights from which building a network takes long


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if catalogue.PARAMETERS[name] > DEEP else ())
        for name in NETWORKS
    ],
)
def test_number_of_weights(name):
    learned = [
        shape
        for path, shape in abstract_params(name).items()
        if not path.endswith(("/mean", "/var"))
    ]
    assert sum(shape.size for shape in learned) == catalogue.PARAMETERS[name]


# check


def figures(out: str) -> dict[str, str]:
    return {line[:16].strip(): line[17:] for line in out.splitlines()}


def cosine(said: str) -> float:
    return float(re.match(r"mean cosine (-?[\d.]+),", said)[1])


@pytest.mark.parametrize("name", ["zoo:surrogate_softmax", "zoo:target_senet"])
def test_networks_of_the_package_on_synthetic_people(opom, name):
    answer = opom("models", "check", name)
    assert (answer.code, answer.errors) == (0, [])
    found = figures(answer.out)
    assert found["network"] == f"{name.removeprefix('zoo:')}, 128 numbers"
    assert found["photos"] == "100 of 20 people"
    assert 0.6 < cosine(found["one person"]) < 0.85 and abs(cosine(found["two people"])) < 0.1
    assert float(found["rank-1"].split()[0]) > 90 and " of 80," in found["rank-1"]
    assert float(found["TAR at FAR 0.01"].split()[0]) > 90
    assert "synthetic; networks of real faces are not made for them" in answer.out
    assert "not the figures" not in answer.out


def test_a_network_that_recognises_nobody(opom, world):
    answer = opom("models", "check", world.network, f"--faces={world.people}")
    assert (answer.code, answer.errors) == (0, [])
    assert "of 12 of these photos" in answer.out or "separate 12 of these photos" in answer.out
    assert figures(answer.out)["photos"] == "12 of 3 people"
    assert "not the figures of a network that recognises faces" in answer.out
    assert "of these photos" in answer.out.splitlines()[-1]  # what other preprocessings give
    assert "synthetic" not in answer.out


def test_people_with_one_photo_tell_no_preprocessing(opom, world, tmp_path, monkeypatch):
    """They come first, and are more than the photos that are tried."""
    for k in range(4):
        (tmp_path / f"0{k}").mkdir()
        (tmp_path / f"0{k}" / "0.png").symlink_to(world.distractors / f"{k}.png")
    for person in "abc":
        (tmp_path / person).symlink_to(world.people / person)
    monkeypatch.setattr(models, "FEW", 6)
    answer = opom("models", "check", world.network, f"--faces={tmp_path}", "--alternatives")
    assert (answer.code, answer.errors) == (0, [])
    assert figures(answer.out)["photos"] == "16 of 7 people"
    assert "separate 6 of these photos" in answer.out.splitlines()[-1]


def test_a_network_that_sees_nothing(opom, world, tmp_path):
    broken = save_broken(tmp_path / "broken", 1)
    answer = opom("models", "check", broken, f"--faces={world.people}")
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.errors
    assert "'broken' are the same for all photos" in line


def test_faces_that_cannot_be_used(opom, world, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").symlink_to(world.people / "a")
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "one": "needs two people with two photos",
        tmp_path / "empty": "no sub-folders",
        tmp_path / "none": "cannot be read",
        world.root: "",  # networks and photos
    }
    for folder, said in cases.items():
        answer = opom("models", "check", world.network, f"--faces={folder}")
        assert (answer.code, answer.out) == (2, "")
        (line,) = answer.errors
        assert str(folder) in line and said in line


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "What to do is missing"),
        (["remove"], "remove"),
        (["fetch"], "needs a network"),
        (["check"], "needs a network"),
        (["check", "nowhere"], "nowhere is no converted network"),
        (["check", "mobilefacenet_xiaoccer"], "models fetch"),
        (["list", "a", "b"], "'a'"),
        (["list", "--people=3"], "--people means nothing for models list; leave it out"),
        (["list", "--name=a"], "--name means nothing for models list"),
        (["fetch", "tiny", "--alternatives"], "--alternatives means nothing for models fetch"),
        (["check", "tiny", "--format=csv"], "--format means nothing for models check"),
        (["check", "tiny", "--photos=3"], "--photos means nothing for models check without"),
        (["list", "--format=html"], "format"),
        (["check", "zoo:target_senet", "--photos=1"], "photos"),
    ],
)
def test_commands_that_are_refused(opom, cache, words, said):
    answer = opom("models", *words)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.errors
    assert said in line


# the real files


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "mobilefacenet_lh185k" else pytest.mark.slow)
        for name in PUBLIC
    ],
)
def test_published_files(opom, real, tmp_path, monkeypatch, request, name):
    """Put where `fetch` looks for them, they are what the catalogue says, and recognise people."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "SCHEMES", ())  # nothing is downloaded
    jax.config.update("jax_numpy_rank_promotion", "allow")  # the broadcasting of ONNX and MXNet
    request.addfinalizer(lambda: jax.config.update("jax_numpy_rank_promotion", "raise"))
    sums = (line.split() for line in (real / "SHA256SUMS").read_text().splitlines())
    where = {sha256: path for sha256, path in sums}
    folder = tmp_path / "opom-jax" / "downloads" / name
    private(folder)
    for file in PUBLIC[name].files:
        (folder / Path(file.path).name).symlink_to(real / where[file.sha256])
        assert (real / where[file.sha256]).stat().st_size == file.size
    answer = opom("models", "fetch", name)
    assert (answer.code, answer.errors) == (0, [])
    network = recognizer.load(f"models:{name}")
    shapes = recognizer.read_card(recognizer.fetched() / name)["shapes"]
    (row,) = (row for row in rows() if row.name == name)
    assert row.embedding == network.spec.embedding and row.here
    said = f"{network.spec.channels}, {scaling(network.spec)}"
    assert row.preprocessing in (said, "RGB, scaled by the graph")
    if PUBLIC[name].graph:
        numbers = sum(math.prod(shape) for shape in shapes.values())
        assert row.parameters <= numbers <= 1.03 * row.parameters
    answer = opom("models", "check", name, f"--faces={real / 'faces_112' / 'lfw'}", "--photos=5")
    found = figures(answer.out)
    assert found["photos"] == "280 of 56 people" and "not the figures" not in answer.out
    assert float(found["rank-1"].split()[0]) > 95


def test_a_reader_that_stops():
    """As with `models list | head -1`."""
    command = f"{sys.executable} run.py models list | head -1"
    ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.startswith("name") and "Traceback" not in ran.stderr
