"""Published networks on real faces: embeddings of their own code, and rank-1."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.convert import translate, translate_graph
from converters.formats import torch_file
from opom_jax.data.images import read_image
from opom_jax.networks.recognizer import PRECISIONS, recognizer

pytestmark = pytest.mark.real

TOLERANCE = 1e-5  # of the largest value
BATCH = 32


class Published(NamedTuple):
    """A network of the real data.

    Attributes:
      weights: file under weights/.
      reference: file under reference/.
      twin: probes, of 1,000, that the torch twin identifies by the protocol of `rank_1`, if any.
      manifest: percent that its manifest states, with more people and distractors.
      scaling: of a file that holds the whole network, which is run as a graph.
      symbol: file under weights/ beside it.
    """

    weights: str
    reference: str
    twin: int | None
    manifest: float
    scaling: str | None = None
    symbol: str | None = None


_Y1 = "mobilefacenet_insightface_y1_mxnet"
_LH = "mobilefacenet_lh_fpga_small/{}_051.ckpt"
PUBLISHED = {
    "mobilefacenet_xiaoccer": Published(
        "mobilefacenet_xiaoccer/068.ckpt", "mobilefacenet_xiaoccer", 930, 93.64
    ),
    "mobilefacenet_lh377k": Published(
        _LH.format("original377k_20260222_135854"), "lh_original377k", 885, 87.35
    ),
    "mobilefacenet_lh185k": Published(
        _LH.format("small185k_20260222_160714"), "lh_small185k", 850, 83.85
    ),
    "mobilefacenet_bubbliiiing": Published(
        "mobilefacenet_bubbliiiing/arcface_mobilefacenet.pth",
        "mobilefacenet_bubbliiiing",
        910,
        90.55,
    ),
    "mobilefacenet_foamliu": Published(
        "mobilefacenet_foamliu/mobile_face.pth", "mobilefacenet_foamliu", 992, 99.01
    ),
    **{
        f"onnx_{name}": Published(
            f"mobilefacenet_foamliu/mobilefacenet_{name}.onnx",
            "mobilefacenet_foamliu",
            992,
            99.01,
            "imagenet",
        )
        for name in ("vface_dynbatch", "lenchik_opset10")
    },
    "mxnet_y1": Published(
        f"{_Y1}/model-0000.params", _Y1, None, 99.18, "none", f"{_Y1}/model-symbol.json"
    ),
}


def read(paths):
    """u8[images,112,112,3]."""
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda path: read_image(path, 112), paths)))


def network(real, name, precision="float32"):
    """A published network and its compiled function of BATCH photos."""
    weights, *_, scaling, symbol = PUBLISHED[name]
    weights = real / "weights" / weights
    if scaling:
        symbol = symbol and real / "weights" / symbol
        found = translate_graph(weights, scaling, symbol=symbol)
    else:
        found = name, translate(weights, torch_file.read(weights), name)
    loaded = recognizer(*found, precision=precision)
    embed = jax.jit(lambda params, photos: loaded.embed(params, photos.astype(jnp.float32)))
    return loaded, lambda photos: np.asarray(embed(loaded.params, photos))


def check_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@pytest.mark.parametrize("name", PUBLISHED)
def test_embeddings_of_the_published_code(real, name):
    with np.load(real / "reference" / f"{PUBLISHED[name].reference}.npz") as file:
        reference = dict(file)
    photos = read(real / path for path in reference["files"])
    loaded, embed = network(real, name)
    inputs = loaded.spec.preprocess(jnp.asarray(photos[:2], jnp.float32))
    for found, wanted in zip(inputs, (reference["input0"], reference["input1"]), strict=True):
        np.testing.assert_allclose(found.transpose(2, 0, 1), wanted, rtol=0, atol=1e-6)
    check_close(embed(photos), reference["embeddings"])


@pytest.fixture(scope="module")
def photos(real):
    """The first of every person, BATCH of them."""
    folders = sorted((real / "faces_112" / "lfw").iterdir())[:BATCH]
    return read(folder / "001.jpg" for folder in folders)


@pytest.mark.parametrize("name", ["onnx_vface_dynbatch", "onnx_lenchik_opset10"])
def test_exports_of_one_network(real, name, photos):
    """The graph of an ONNX file and the family of the torch file it was made from."""
    _, graph = network(real, name)
    _, family = network(real, "mobilefacenet_foamliu")
    check_close(graph(photos), family(photos))


def test_bfloat16(real, photos):
    """Convolutions and products in bfloat16; what lies between them stays float32."""
    one, other = (network(real, "mxnet_y1", precision)[1](photos) for precision in PRECISIONS)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert ((one * other).sum(1) / lengths > 0.9999).all()


@pytest.fixture(scope="module")
def faces(real):
    """Photos of the people, the person of each, and the photos of the distractors."""
    folder = real / "faces_112"
    people = sorted((folder / "lfw").glob("*/*.jpg"))
    others = sorted((folder / "lfw_distractors").glob("*/*.jpg"))
    names = [path.parent.name for path in people]
    if (len(people), len(set(names)), len(others)) != (1056, 56, 2400):
        pytest.skip("the figures are for 1056 photos of 56 people and 2400 distractors")
    return read(people), np.unique(names, return_inverse=True)[1], read(others)


def rank_1(embed, faces):
    """How many probes are most similar to their person's photo in the gallery.

    The gallery is the first photo of every person and all distractors; all other photos are probes.
    """
    people, person, others = faces
    photos = np.concatenate([people, others])
    rows = [embed(photos[start : start + BATCH]) for start in range(0, len(photos), BATCH)]
    features = np.concatenate(rows).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    first = np.flatnonzero(np.diff(person, prepend=-1))
    gallery = np.concatenate([features[first], features[len(people) :]])
    probes = np.delete(np.arange(len(people)), first)
    best = (features[probes] @ gallery.T).argmax(1)
    return np.count_nonzero(best == person[probes]), len(probes)


@pytest.mark.parametrize(
    "name",
    [
        "mobilefacenet_lh185k",
        "mobilefacenet_foamliu",
        pytest.param("mxnet_y1", marks=pytest.mark.slow),
    ],
)
def test_rank_1(real, faces, name):
    """As many as the torch twin on the same photos, and no fewer than the manifest leads to expect.

    The manifest's figure is for 96 people and 4,000 distractors; this gallery is smaller.
    """
    _, embed = network(real, name)
    found, probes = rank_1(embed, faces)
    assert probes == 1000
    assert PUBLISHED[name].twin is None or abs(found - PUBLISHED[name].twin) <= 1
    assert 100 * found / probes > PUBLISHED[name].manifest - 1


@pytest.mark.torch
def test_rank_1_of_a_torch_twin(real, faces):
    """One of the twins' figures, counted again."""
    torch = pytest.importorskip("torch")
    from tests.torch_twins import mobilefacenet_small185k

    weights = real / "weights" / PUBLISHED["mobilefacenet_lh185k"].weights
    twin = mobilefacenet_small185k().eval()
    twin.load_state_dict(torch.load(weights, "cpu", weights_only=True)["net_state_dict"])

    @torch.no_grad()
    def embed(photos):
        inputs = (torch.tensor(photos[:, :, 8:104]).float() - 127.5) / 128
        return twin(inputs.permute(0, 3, 1, 2)).numpy()

    assert rank_1(embed, faces) == (PUBLISHED["mobilefacenet_lh185k"].twin, 1000)


# Files that hold other networks: detectors.


@pytest.mark.parametrize(
    ("weights", "symbol", "outputs"),
    [
        (
            "mjsml_16-0000.params",
            "mjsml_16-symbol.json",
            {"face_rpn_cls_prob_reshape_stride16": 400, "face_rpn_bbox_pred_stride16": 800},
        ),
        ("scrfd_2.5g_bnkps.onnx", None, {"446": 800, "466": 200, "486": 50, "452": 8000}),
    ],
)
def test_other_graphs_run(real, weights, symbol, outputs):
    """Outputs of a photo of 160 x 160: its places are 8, 16 or 32 pixels apart."""
    folder = real / "weights" / "parsers"
    photos = np.random.default_rng(0).uniform(0, 255, (2, 160, 160, 3)).astype(np.float32)
    for output, length in outputs.items():
        options = {"symbol": symbol and folder / symbol, "size": 160, "output": output}
        loaded = recognizer(*translate_graph(folder / weights, "(x-127.5)/128", **options))
        found = np.asarray(jax.jit(loaded.embed)(loaded.params, photos))
        assert found.shape == (2, length) and np.isfinite(found).all()
        assert np.ptp(found) > 0 and not np.array_equal(*found)
