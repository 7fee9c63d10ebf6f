"""Keras files: names of every generation, and what is refused."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from converters import formats
from converters.formats.keras_names import named
from opom_jax.errors import InputError

ONE = np.ones(1, np.float32)


def names(*paths):
    """{path: name} that `named` gives, all in one file."""
    arrays = {path: np.full(1, k) for k, path in enumerate(paths)}
    found = {int(array[0]): name for name, array in named(arrays).items()}
    return [found[k] for k in range(len(paths))]


@pytest.fixture
def write(tmp_path):
    """write({path: array}, layer={group: its name}) -> path of an .h5 file."""

    def make(arrays, layer=None, file="weights.h5"):
        with h5py.File(tmp_path / file, "w") as h5:
            for path, array in arrays.items():
                h5[path] = array
            for group, name in (layer or {}).items():
                h5.require_group(group).attrs["name"] = name
        return tmp_path / file

    return make


def refusal(path):
    with pytest.raises(InputError) as caught:
        formats.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


# Names.


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("conv1/conv1/kernel:0", "conv1.kernel"),
        ("model_weights/conv1/conv1/kernel:0", "conv1.kernel"),
        ("conv1/conv1/kernel", "conv1.kernel"),  # Keras 3
        ("conv1/conv1_1/kernel:0", "conv1.kernel"),  # the model was built twice in one graph
        ("conv1/sequential/conv1/kernel", "conv1.kernel"),
        ("layers/conv2d_4/conv1/0", "conv1.kernel"),
        ("layers/conv2d_4/conv1/1", "conv1.bias"),
        ("layers/functional/layers/dense/fc/1", "fc.bias"),
        ("layers/p_re_lu/conv1_prelu/0", "conv1_prelu.alpha"),
        ("layers/conv2d/conv1/2", "conv1.2"),
        ("layers/rescaling_2/mine/0", "mine.0"),
        ("alone", "alone.alone"),
    ],
)
def test_names(path, name):
    assert names(path) == [name]


def test_a_model_within_a_model():
    paths = ("net/conv1/kernel:0", "net/conv2/kernel:0", "fc/fc/kernel:0")
    assert names(*paths) == ["conv1.kernel", "conv2.kernel", "fc.kernel"]


def test_batch_norms_with_and_without_gamma():
    """Keras 3 numbers the variables that are there."""
    paths = [f"layers/batch_normalization/a/{k}" for k in range(4)]
    paths += [f"layers/batch_normalization_1/b/{k}" for k in range(3)]
    with_gamma = ["a.gamma", "a.beta", "a.moving_mean", "a.moving_variance"]
    assert names(*paths) == [*with_gamma, "b.beta", "b.moving_mean", "b.moving_variance"]


def test_what_keras_named_is_numbered_from_0():
    """By number, not by letter, each class for itself; "vars" is what old Keras 3 leaves."""
    paths = [f"{name}/{name}/kernel:0" for name in ("conv2d_10", "conv2d_9", "dense_3", "fc")]
    assert names(*paths) == [
        "conv2d_1.kernel",
        "conv2d_0.kernel",
        "dense_0.kernel",
        "fc.kernel",
    ]
    paths = [f"layers/conv2d{k}/vars/0" for k in ("_10", "", "_2")]
    assert names(*paths) == ["conv2d_2.kernel", "conv2d_0.kernel", "conv2d_1.kernel"]


def test_layers_of_one_name(write):
    arrays = {"layers/conv2d/vars/0": ONE, "layers/conv2d_1/vars/0": ONE}
    path = write(arrays, {"layers/conv2d/vars": "a", "layers/conv2d_1/vars": "a"})
    assert "two layers of one name" in refusal(path)


# Files.


@pytest.mark.parametrize("file", ["weights.h5", "weights.weights.h5", "without_suffix"])
def test_weights_and_nothing_else(write, file):
    """Not the optimizer's, not the counters of dropouts, not text."""
    arrays = {
        "layers/conv2d/vars/0": np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1),
        "layers/dropout/seed_generator/vars/0": np.zeros(2, np.uint32),
        "optimizer/vars/1": ONE,
        "optimizer_weights/conv1/m:0": ONE,
        "classes": np.array([b"a"]),
    }
    group = formats.read(write(arrays, {"layers/conv2d/vars": "conv1", "vars": "net"}, file))[""]
    assert list(group) == ["conv1.kernel"]
    np.testing.assert_array_equal(group["conv1.kernel"], arrays["layers/conv2d/vars/0"])


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", 3, [b"a"]])
def test_hostile_names_of_layers(write, name):
    """Are not taken, or refused."""
    path = write({"layers/conv2d/vars/0": ONE}, {"layers/conv2d/vars": name})
    if name == "a\nb":
        assert "arrays" in refusal(path)
    else:
        assert list(formats.read(path)[""]) == ["conv2d_0.kernel"]


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("/etc/passwd", "/a"), h5py.SoftLink("/conv1")], ids=["file", "soft"]
)
def test_links(write, link):
    path = write({"conv1/conv1/kernel:0": ONE})
    with h5py.File(path, "a") as file:
        file["other"] = link
    assert "links to elsewhere at 'other'" in refusal(path)


def test_data_in_other_files(write, tmp_path):
    path = write({"conv1/conv1/kernel:0": ONE})
    with h5py.File(path, "a") as file:
        outside = [(str(tmp_path / "secret"), 0, 4)]
        file.create_dataset("outside", (1,), np.float32, external=outside)
    assert "keeps 'outside' in other files" in refusal(path)


def test_more_numbers_than_the_file_can_hold(write):
    """A compressed or empty array of any size."""
    path = write({"conv1/conv1/kernel:0": ONE})
    with h5py.File(path, "a") as file:
        file.create_dataset("huge", (1 << 40,), np.float32, chunks=(1024,))
    assert "larger than the file can hold" in refusal(path)


def test_nested_too_deeply(write):
    assert "nested too deeply" in refusal(write({"a/" * 30 + "b": ONE}))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(write, share):
    path = write({f"conv{k}/conv{k}/kernel:0": np.ones(500, np.float32) for k in range(9)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refusal(path)


def test_an_archive_is_its_weights(write, tmp_path):
    inner = write({"layers/conv2d/vars/0": ONE}, {"layers/conv2d/vars": "conv1"})
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "not even JSON")
        archive.write(inner, "model.weights.h5")
    assert list(formats.read(path)[""]) == ["conv1.kernel"]
    path.write_bytes(path.read_bytes()[:-30])
    assert "damaged" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert "no model.weights.h5" in refusal(path)


@pytest.mark.parametrize("known", [True, False])
def test_archives_without_names(write, tmp_path, known):
    """Keras' first ones: the configuration has the names, in the order in which it counts."""
    inner = write({"layers/conv2d/vars/0": ONE, "layers/conv2d_1/vars/0": ONE + 1})
    layers = [("Conv2D", "a"), ("Flatten", "b"), ("Conv2D", "c")]
    layers = [{"class_name": kind, "config": {"name": name}} for kind, name in layers]
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        configuration = {"config": {"layers": layers if known else [3]}}
        archive.writestr("config.json", json.dumps(configuration))
        archive.write(inner, "model.weights.h5")
    found = {name: array[0] for name, array in formats.read(path)[""].items()}
    first, second = ("a", "c") if known else ("conv2d_0", "conv2d_1")
    assert found == {f"{first}.kernel": 1, f"{second}.kernel": 2}


def test_no_file(tmp_path):
    assert "is not a file" in refusal(tmp_path / "none.h5")
