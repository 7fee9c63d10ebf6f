"""Graph networks: data that runs, is stored and loaded like any network, and is checked first."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.errors import InputError
from opom_jax.networks import recognizer
from opom_jax.networks.graph import Graph, Node, paths

SIZE = 8
DRAW = np.random.default_rng(0)
ARRAYS = {
    "kernel": DRAW.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "slope": np.full((4, 1, 1), 0.2, np.float32),
    "dense": DRAW.normal(size=(5, 4 * SIZE * SIZE)).astype(np.float32),
}
NODES = (
    Node("Conv", "conv", ("x", "kernel"), ("c",), (("pads", (1, 1, 1, 1)),)),
    Node("PRelu", "act", ("c", "slope"), ("a",)),
    Node("Flatten", "flat", ("a",), ("f",)),
    Node("Gemm", "fc", ("f", "dense"), ("y",), (("transB", 1),)),
)


def graph(nodes=NODES, **changes) -> Graph:
    weights = tuple((name, array.shape) for name, array in ARRAYS.items())
    fields = {"input": "x", "output": "y", "shape": (1, 3, SIZE, SIZE), "constants": ()}
    return Graph(nodes, **(fields | {"weights": weights} | changes))


@pytest.fixture
def arrays():
    where = paths(graph())
    return {where[name]: array for name, array in ARRAYS.items()}


@pytest.fixture
def images():
    return jnp.asarray(DRAW.integers(0, 256, (3, SIZE, SIZE, 3)), jnp.float32)


def direct(images):
    """The same by hand, in the order of the file."""
    x = ((images - 127.5) / 128).transpose(0, 3, 1, 2)
    y = jax.lax.conv_general_dilated(x, ARRAYS["kernel"], (1, 1), [(1, 1)] * 2)
    y = jnp.where(y >= 0, y, 0.2 * y)
    return y.reshape(len(images), -1) @ ARRAYS["dense"].T


def test_embeds_any_number_of_images(arrays, images):
    network = recognizer.recognizer(recognizer.graph_spec(graph()), arrays)
    assert network.spec.embedding == 5 and network.name == "graph"
    found = jax.jit(network.embed)(network.params, images)
    np.testing.assert_allclose(found, direct(images), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(network.embed(network.params, images[:1]), found[:1], atol=1e-4)


def test_gradient_of_the_image(arrays, images):
    network = recognizer.recognizer(recognizer.graph_spec(graph()), arrays)
    found = jax.grad(lambda x: jnp.sin(network.embed(network.params, x)).sum())(images)
    wanted = jax.grad(lambda x: jnp.sin(direct(x)).sum())(images)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("half", [False, True])
def test_stored_and_loaded(arrays, images, tmp_path, half):
    spec = recognizer.graph_spec(graph(), channels="BGR", mean=(1.0, 2.0, 3.0))
    recognizer.save(tmp_path / "net", spec, arrays, {"file": "x"}, half=half)
    network = recognizer.load(tmp_path / "net")
    assert network.spec.channels == "BGR" and network.spec.mean == (1.0, 2.0, 3.0)
    assert network.spec.build == spec.build
    wanted = recognizer.recognizer(spec, arrays)
    found = network.embed(network.params, images)
    np.testing.assert_allclose(
        found, wanted.embed(wanted.params, images), rtol=0.01 if half else 1e-6, atol=0.1 * half
    )


def test_equal_graphs_share_what_is_compiled(arrays):
    one, two = (recognizer.recognizer(recognizer.graph_spec(graph()), arrays) for _ in range(2))
    assert one.embed is two.embed


def test_bfloat16_is_near(arrays, images):
    spec = recognizer.graph_spec(graph())
    whole, half = (recognizer.recognizer(spec, arrays, precision=p) for p in recognizer.PRECISIONS)
    a, b = (np.asarray(n.embed(n.params, images), np.float32) for n in (whole, half))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert (cosine > 0.9999).all() and (a != b).any()
    kinds = {str(v.dtype) for v in recognizer.flat(half.params).values()}
    assert half.params["weights"]["1"]["vector"][...].dtype == jnp.float32  # the slopes
    assert kinds == {"bfloat16", "float32"}


@pytest.mark.parametrize(
    "broken, said",
    [
        (graph((*NODES[:3], NODES[3]._replace(operator="Lstm"))), "'Lstm' of node 'fc'"),
        (graph((*NODES[:3], NODES[3]._replace(inputs=("f", "none")))), "'fc' reads 'none'"),
        (graph(output="z"), "nothing makes the output 'z'"),
    ],
)
def test_what_cannot_run_is_named(broken, said):
    with pytest.raises(ValueError, match=said):
        broken.check()


def test_a_node_that_does_not_fit_is_named():
    wrong = (*NODES[:2], NODES[3]._replace(inputs=("a", "dense")))
    with pytest.raises(InputError, match="node 'fc' .Gemm."):
        recognizer.graph_spec(graph(wrong))


def test_a_card_of_another_embedding_is_refused(arrays, tmp_path):
    recognizer.save(tmp_path / "net", recognizer.graph_spec(graph()), arrays, {"file": "x"})
    path = tmp_path / "net" / "card.json"
    card = json.loads(path.read_text())
    card["graph"]["output"] = "x"
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="no graph that can be run"):
        recognizer.load(tmp_path / "net")


@pytest.mark.parametrize("field", ["nodes", "input", "output", "shape", "constants", "weights"])
@pytest.mark.parametrize("value", [None, 3, "z", [[1]], {"a": 1}])
def test_a_damaged_card_is_refused(arrays, tmp_path, field, value):
    recognizer.save(tmp_path / "net", recognizer.graph_spec(graph()), arrays, {"file": "x"})
    path = tmp_path / "net" / "card.json"
    card = json.loads(path.read_text())
    card["graph"][field] = value
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="card.json|convert"):
        recognizer.load(tmp_path / "net")
