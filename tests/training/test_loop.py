"""Runs: they learn, resume bit for bit, are the same on any number of devices, and refuse."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax import checkpoints, files
from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.registry import NETWORKS
from opom_jax.training import loop
from opom_jax.training.data import batches
from opom_jax.training.heads import HEADS, cosine
from opom_jax.training.settings import Settings
from opom_jax.training.step import learning_rate, optimizer, trainer
from tests.training.conftest import TINY

OFTEN = loop.Often(evaluate=6, checkpoint=4)


def settings(**changes) -> Settings:
    base = {"network": "tiny", "steps": 20, "batch": 8, "warmup": 2, "learning_rate": 0.05}
    return Settings(**(base | {"scale": 8.0} | changes))


def train(
    workdir, given, often=OFTEN, report=lambda step, said: None, devices=1, origin=None, **changes
):
    chosen = settings(**changes)
    return loop.train(workdir, chosen, given, often, jax.local_devices()[:devices], report, origin)


def run(given, devices=1, **changes):
    """Final state and losses, without a folder."""
    chosen = settings(**changes)
    made = trainer(chosen, given.people, jax.local_devices()[:devices])
    state, losses = made.init(), []
    args = chosen.batch, chosen.seed, chosen.augment, 0, chosen.steps
    for images, labels in batches(given.train, *args):
        state, metrics = made.update(state, made.split(images), made.split(labels))
        losses.append(float(metrics.loss))
    return state, losses


def arrays(folder):
    network = recognizer.load(folder)
    return {path: np.asarray(v[...]) for path, v in recognizer.flat(network.params).items()}


def kill_at(step):
    def report(done, said):
        if done == step:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def undisturbed(blobs, tmp_path_factory):
    """The workdir of an undisturbed run, only read."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", TINY)
        train(workdir, blobs)
    return workdir


@pytest.fixture
def finished(tiny, undisturbed, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(undisturbed, tmp_path / "finished"))


def journal(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# Learning.


@pytest.mark.parametrize("head", HEADS)
def test_people_are_told_apart(tiny, blobs, head):
    """Nearly every photo ends nearest to the weights of its own person."""
    state, losses = run(blobs, head=head, steps=30, augment=0.3)
    made = trainer(settings(), blobs.people, jax.local_devices()[:1])
    features = made.embed(state.params, state.statistics, blobs.train.images)
    found = np.asarray(cosine(features, state.head)).argmax(1)
    assert np.mean(found == blobs.train.labels) > 0.8 and np.isfinite(losses).all()


@pytest.mark.parametrize("optimizer, rate", [("adamw", 0.01), ("muon", 0.02)])
def test_other_optimizers(tiny, blobs, optimizer, rate):
    _, losses = run(blobs, optimizer=optimizer, learning_rate=rate)
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.3


def test_bfloat16_is_near(tiny, blobs):
    state, losses = run(blobs, steps=6)
    half, near = run(blobs, steps=6, precision="bfloat16")
    np.testing.assert_allclose(near, losses, rtol=0.05)
    assert near != losses
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype and a.dtype in (jnp.float32, jnp.int32)


def test_devices_share_a_batch(tiny, blobs):
    """Batch norm sees the whole batch: four devices do what one does."""
    alone, losses = run(blobs, steps=8)
    shared, same = run(blobs, devices=4, steps=8)
    np.testing.assert_allclose(same, losses, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 + 1e-4 * np.abs(b).max())


def test_one_compilation(tiny, blobs):
    made = trainer(settings(), blobs.people, jax.local_devices()[:2])
    state = made.init()
    for images, labels in batches(blobs.train, 8, 0, 1.0, 0, 3):
        state, _ = made.update(state, made.split(images), made.split(labels))
    assert made.update._cache_size() == 1  # pyright: ignore


def test_statistics_and_decay(tiny, blobs):
    """Statistics move with training and embeddings are judged with them; norms and slopes feel no
    decay, kernels and class weights do."""
    chosen = settings(
        weight_decay=0.5, clip=1e-9, learning_rate=1.0, warmup=0, steps=2, head="softmax"
    )
    made = trainer(chosen, blobs.people, jax.local_devices()[:1])
    before, state = made.init(), made.init()
    images, labels = next(batches(blobs.train, 8, 0, 0.0, 0, 1))
    state, _ = made.update(state, images, labels)
    old, new = (recognizer.flat(s.params) for s in (before, state))
    np.testing.assert_allclose(new["conv1/kernel"][...], old["conv1/kernel"][...] / 2, atol=1e-6)
    np.testing.assert_allclose(state.head, before.head / 2, atol=1e-6)
    for path in ("bn1/scale", "prelu/slope", "head/bias"):
        np.testing.assert_allclose(new[path][...], old[path][...], atol=1e-6)
    mean = recognizer.flat(state.statistics)["bn1/mean"][...]
    assert np.abs(mean).max() > 1e-3
    features = made.embed(state.params, state.statistics, images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    alone = made.embed(state.params, state.statistics, images[:1])
    np.testing.assert_allclose(alone, features[:1], atol=1e-5)


def test_learning_rate():
    rate = learning_rate(settings(steps=20, warmup=4, learning_rate=2.0))
    found = [float(rate(step)) for step in range(21)]
    np.testing.assert_allclose(found[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    np.testing.assert_allclose([found[12], found[20]], [1.0, 0.0], atol=1e-6)
    assert np.all(np.diff(found[4:]) < 0)


# The folder.


def test_a_finished_run(finished, blobs, tiny):
    lines = journal(finished)
    assert [line["step"] for line in lines] == [6, 12, 18, 20]
    assert [line["steps_averaged"] for line in lines] == [6, 6, 6, 2]
    for line in lines:
        assert 0.5 <= line["accuracy"] <= 1 and line["same"] > line["other"]
        assert np.isfinite(line["loss"]) and line["images_per_second"] > 0
    card = json.loads((finished / "network" / "card.json").read_text())
    source = card["source"]
    assert source["steps"] == 20 and source["images_seen"] == 160
    assert source["data"] == {"blobs": 4} and source["trained"]["head"] == "arcface"
    assert source["verification"] == {k: lines[-1][k] for k in ("accuracy", "same", "other")}
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["16", "20"]
    network = recognizer.load(finished / "network")
    photos = blobs.held_out.images.astype(np.float32)
    features = np.asarray(jax.jit(network.embed)(network.params, photos))
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = loop.verification(features, blobs.held_out.labels)
    np.testing.assert_allclose(found, list(source["verification"].values()), rtol=1e-4)


@pytest.mark.parametrize("step", [1, 8, 11, 20])
def test_a_resumed_run_ends_with_the_same_bits(finished, blobs, step):
    workdir = finished.with_name("resumed")
    with pytest.raises(KeyboardInterrupt):
        train(workdir, blobs, report=kill_at(step))
    assert not (workdir / "network").exists()
    (workdir / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()  # as a kill while saving leaves
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"step": 99}\n{"st')
    done = []
    train(workdir, blobs, report=lambda step, said: done.append(step))
    assert done == list(range(step - step % 4 + 1, 21))
    wanted, found = arrays(finished / "network"), arrays(workdir / "network")
    for path in wanted:
        np.testing.assert_array_equal(found[path], wanted[path], path)
    assert [line["step"] for line in journal(workdir)] == [6, 12, 18, 20]
    again = step - step % 4  # a mean over the steps since then
    averaged = [min(6, end - again) if end > again else 6 for end in (6, 12, 18)]
    averaged.append(min(2, 20 - again))
    assert [line["steps_averaged"] for line in journal(workdir)] == averaged
    for a, b in zip(journal(workdir), journal(finished), strict=True):
        assert a["accuracy"] == b["accuracy"] and a["same"] == b["same"]


def test_other_devices_go_on(finished, blobs):
    """With rounding errors of their own."""
    workdir = finished.with_name("resumed")
    with pytest.raises(KeyboardInterrupt):
        train(workdir, blobs, report=kill_at(16))
    train(workdir, blobs, devices=2)
    wanted, found = arrays(finished / "network"), arrays(workdir / "network")
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], atol=1e-4)


def test_the_same_command_again_does_nothing(finished, blobs):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    train(finished, blobs, report=lambda step, said: pytest.fail("trained again"))
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_half(finished, blobs):
    shutil.rmtree(finished / "network")
    train(finished, blobs, OFTEN._replace(half=True))
    assert {p.name for p in (finished / "network").iterdir()} == {"card.json", "params.npz"}
    assert len(arrays(finished / "network")) == len(recognizer.abstract_params("tiny"))


# What is refused.


def test_from_a_trained_network(finished, blobs, tmp_path):
    """The first steps of a run that hardly learns leave the weights that it began with."""
    origin = recognizer.load(finished / "network")
    folder = train(tmp_path / "on", blobs, origin=origin, steps=3, learning_rate=1e-9)
    before, after = arrays(finished / "network"), arrays(folder)
    for path, array in before.items():
        if path.endswith(("mean", "var")):  # they go on; a new network has means 0, variances 1
            new = float(path.endswith("var"))
            assert np.abs(after[path] - array).mean() < 0.5 * np.abs(array - new).mean()
        else:
            np.testing.assert_allclose(after[path], array, atol=1e-6)
    assert json.loads((folder / "card.json").read_text())["source"]["init"] == origin.digest
    with pytest.raises(InputError, match="card.json is of another .*init"):
        train(tmp_path / "on", blobs, steps=3, learning_rate=1e-9)


def test_another_configuration(finished, blobs):
    with pytest.raises(InputError, match=r"settings\.head: 'arcface' there, 'sface' here"):
        train(finished, blobs, head="sface")
    with pytest.raises(InputError, match=r"data\.blobs: 4 there, 5 here"):
        train(finished, blobs._replace(record={"blobs": 5}))


@pytest.mark.parametrize("key, value", [("head", "cosface"), ("network", "tiny2")])
def test_a_checkpoint_of_another_run(finished, blobs, monkeypatch, key, value):
    monkeypatch.setitem(loop.recognizer.NETWORKS, "tiny2", loop.recognizer.NETWORKS["tiny"])
    other = finished.with_name("other")
    with pytest.raises(KeyboardInterrupt):
        train(other, blobs, report=kill_at(1), **{key: value})
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(finished / "checkpoints", other / "checkpoints")
    with pytest.raises(InputError, match=rf"checkpoints/20 .*settings\.{key}.*another --workdir"):
        train(other, blobs, **{key: value})


def test_a_checkpoint_of_other_shapes(finished, blobs, monkeypatch):
    """Whatever its record says."""
    shutil.rmtree(finished / "network")
    monkeypatch.setattr(files, "check_same", lambda *_: None)
    monkeypatch.setattr(checkpoints.files, "check_same", lambda *_: None)
    with pytest.raises(InputError, match="checkpoints/20 is damaged or of another network"):
        train(finished, blobs._replace(people=9))


def test_a_damaged_checkpoint(finished, blobs):
    shutil.rmtree(finished / "network")
    for path in (finished / "checkpoints" / "20" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(InputError, match="checkpoints/20 is damaged.*remove it"):
        train(finished, blobs)
    shutil.rmtree(finished / "checkpoints" / "20")
    done = []
    train(finished, blobs, report=lambda step, said: done.append(step))
    assert done == [17, 18, 19, 20]


def test_no_room(tiny, blobs, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("OUT_OF_RANGE: No space left on device\nSource: somewhere")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.CheckpointManager, "save", fail)
        with pytest.raises(InputError, match="checkpoints/4 cannot be written.*No space left"):
            train(tmp_path / "run", blobs)
    (tmp_path / "run" / "metrics.jsonl").unlink(missing_ok=True)

    def fill(step, said):
        if step == 1:  # not before: reading it never ends
            (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(InputError, match="metrics.jsonl cannot be written"):
        train(tmp_path / "run", blobs, OFTEN._replace(evaluate=2), fill)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert train(tmp_path / "run", blobs).is_dir()


def test_a_loss_that_is_not_finite(tiny, blobs, tmp_path):
    with pytest.raises(InputError, match="not finite at step .*lower config.learning_rate"):
        train(tmp_path, blobs, learning_rate=1e30, warmup=0, weight_decay=0.0)
    assert not (tmp_path / "network").exists()


def test_a_network_from_elsewhere(tiny, blobs, finished):
    """Is not taken for the result of a run."""
    card = finished / "network" / "card.json"
    given = json.loads(card.read_text())
    card.write_text(json.dumps(given | {"source": {"file": "weights.pth"}}))
    with pytest.raises(InputError, match="network that was not trained here.*another --workdir"):
        train(finished, blobs)
    card.write_text(json.dumps(given))
    with pytest.raises(InputError, match="card.json is of another .*settings.seed"):
        train(finished, blobs, seed=5)
    assert train(finished, blobs) == finished / "network"


def test_a_checkpoint_that_was_made_again(finished, blobs):
    """After it was damaged and removed; killed before its new digest was written."""
    shutil.rmtree(finished / "network")
    shutil.rmtree(finished / "checkpoints" / "20")
    digest = files.content_sha256

    def kill(folder):
        if folder.name == "20":
            raise KeyboardInterrupt
        return digest(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.files, "content_sha256", kill)
        with pytest.raises(KeyboardInterrupt):
            train(finished, blobs)
    assert train(finished, blobs).is_dir()


def test_muon_takes_dense_kernels_alone():
    """Theirs move by an orthogonal matrix as long as the rate; depthwise kernels, vectors and
    class weights by Adam's step (Nesterov's first is 28/19) at a fifth of it."""
    draw = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 2, 4), "dense": (6, 5), "wise": (3, 3, 4), "slope": (4,)}
    params = {name: jnp.asarray(draw.normal(size=s), jnp.float32) for name, s in shapes.items()}
    weights = params, jnp.asarray(draw.normal(size=(5, 7)), jnp.float32)
    rule = optimizer(settings(optimizer="muon", learning_rate=0.1, warmup=0, weight_decay=0.0))
    (change, classes), _ = jax.jit(rule.update)(weights, rule.init(weights), weights)
    for name in ("conv", "dense"):
        matrix = np.asarray(change[name]).reshape(-1, shapes[name][-1])
        lengths = np.linalg.svd(matrix, compute_uv=False)
        assert (np.abs(lengths - 0.1) < 0.04).all(), lengths
    for moved in (change["wise"], change["slope"], classes):
        np.testing.assert_allclose(np.abs(moved), 0.02 * 28 / 19, rtol=1e-3)


def test_one_process_at_a_time(tiny, blobs, tmp_path):
    with files.held(tmp_path), pytest.raises(InputError, match="Another process"):
        train(tmp_path, blobs)


def test_batches_that_do_not_fit(tiny, blobs, tmp_path):
    with pytest.raises(InputError, match="batch=25 is more than the 24 photos"):
        train(tmp_path / "run", blobs, batch=25)
    with pytest.raises(InputError, match="batch=6 cannot be divided by 4 devices"):
        train(tmp_path / "run", blobs, batch=6, devices=4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        ("network", "vgg"),
        ("head", "triplet"),
        ("optimizer", "lion"),
        ("precision", "float16"),
        ("learning_rate", float("nan")),
        ("warmup", 20),
        ("augment", 1.5),
        ("seed", -1),
    ],
)
def test_settings_out_of_range(tiny, name, value):
    settings().check()
    with pytest.raises(InputError, match=rf"^config\.{name}={value!r} must be "):
        settings(**{name: value}).check()
