"""PRO-Face's five recognisers against outputs of its published code, with the recipe's weights."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.recipe import weights
from converters.convert import translate
from opom_jax.networks.recognizer import recognizer
from opom_jax.networks.registry import NETWORKS

torch = pytest.importorskip("torch")

TOLERANCE = 1e-5  # of the largest number
OURS = {
    "MobileFaceNet": "mobilefacenet_proface",
    "IResNet50": "cbam_ir_50",
    "SEResNet50": "cbam_ir_se_50",
    "IResNet100": "iresnet_100",
    "InceptionResNet": "inception_resnet_v1",
}
LAYOUTS = {NETWORKS[name].layout for name in OURS.values()}


def _resized(photos: np.ndarray, size: int) -> np.ndarray:
    """Bicubic and not antialiased, as PRO-Face resizes tensors."""
    tensor = torch.tensor(photos.transpose(0, 3, 1, 2))
    made = torch.nn.functional.interpolate(tensor, size=(size, size), mode="bicubic")
    return made.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "MobileFaceNet" else pytest.mark.slow) for n in OURS]
)
def test_embeddings_of_the_published_code(goldens, name):
    published = json.loads((goldens / "state_dict_keys_proface.json").read_text())[name]
    arrays = {k: v for k, v in weights(published).items() if not k.startswith("logits.")}
    network = recognizer(OURS[name], translate(Path(name), {"": arrays}, OURS[name]))
    with np.load(goldens / "images.npz") as file:
        photos = file["images112"][:2, 0].astype(np.float32)
    if network.spec.size != photos.shape[1]:
        photos = _resized(photos, network.spec.size)
    found = np.asarray(jax.jit(network.embed)(network.params, photos))
    if name == "InceptionResNet":
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
    with np.load(goldens / "proface_recognizers.npz") as file:
        wanted = file[name]
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()
