"""The table of networks: name -> how to build it and what it wants to see.

Everything outside this room feeds RGB 0..255; a spec holds the rest. A new network is a family file
(or a new setting of one) and a line here; its conversion rules are a line in `converters/rules`.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from opom_jax.networks import inception_resnet, mobilenet
from opom_jax.networks.deepface import DeepFace
from opom_jax.networks.deepid import DeepID
from opom_jax.networks.edgeface import SETTINGS, EdgeFace
from opom_jax.networks.inception_resnet import InceptionResNet
from opom_jax.networks.inception_resnet_v1 import InceptionResNetV1
from opom_jax.networks.ir import IR, IRESNET_UNITS, UNITS
from opom_jax.networks.mobilefacenet import NARROW_185K, NARROW_377K, MobileFaceNet
from opom_jax.networks.mobilenet import MobileNet
from opom_jax.networks.openface import OpenFace
from opom_jax.networks.resnet import ResNet
from opom_jax.networks.vgg_face import VGGFace
from opom_jax.networks.vit import SIZES, VisionTransformer

CHANNELS = ("RGB", "BGR")
MAX_SIDE = 4096  # pixels of an image that a stored network may ask for
UNIT = (1 / 127.5, 1 / 127.5, 1 / 127.5)  # scale to -1..1


@dataclasses.dataclass(frozen=True)
class Spec:
    """A network and its preprocessing: (x - mean) * scale on the cropped square image.

    Attributes:
      build: rngs -> Flax module; calling it gives (embedding f32[B,D], taps).
      embedding: D.
      size: side of the square RGB image that is cropped and scaled, in pixels.
      crop: (top, bottom, left, right) pixels kept: rows top:bottom, columns left:right; those
        beyond the image are black.
      channels: order the network was trained with, "RGB" or "BGR".
      mean: subtracted, per channel in the network's order, 0..255 scale.
      scale: multiplied after that.
      layout: name of the rule table in `converters/rules` that reads its published weights; "" if
        nobody has published any (networks trained here).
    """

    build: Callable[[nnx.Rngs], nnx.Module]
    embedding: int
    layout: str
    size: int = 112
    crop: tuple[int, int, int, int] | None = None
    channels: str = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: tuple[float, float, float] = (1 / 128, 1 / 128, 1 / 128)

    def preprocess(self, images: jax.Array) -> jax.Array:
        """Differentiable: f32[B,H,W,3] RGB 0..255 -> what the network takes.

        Images of another size are resized (bilinear, antialiased) to `size` first.
        """
        if images.shape[1:3] != (self.size, self.size):
            shape = (images.shape[0], self.size, self.size, 3)
            images = jax.image.resize(images, shape, "bilinear")
        if self.crop is not None:
            top, bottom, left, right = self.crop
            borders = ((-top, bottom - self.size, 0), (-left, right - self.size, 0))
            black = jnp.zeros((), images.dtype)
            images = jax.lax.pad(images, black, ((0, 0, 0), *borders, (0, 0, 0)))
        if self.channels == "BGR":
            images = images[..., ::-1]
        mean, scale = (jnp.array(v).reshape(1, 1, 1, 3) for v in (self.mean, self.scale))
        return (images - mean) * scale

    def card(self) -> dict:
        """The preprocessing in words that JSON can hold; stored beside converted weights."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields if k != "build"}

    @classmethod
    def of_card(cls, build: Callable[[nnx.Rngs], nnx.Module], fields: dict) -> "Spec":
        """The inverse of `card`, for networks that are in no table; ValueError, TypeError, KeyError
        if the fields are not a card's."""
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        spec = cls(build=build, **given)
        numbers = (*spec.mean, *spec.scale, spec.size, spec.embedding)
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ValueError("not numbers")
        if (len(spec.mean), len(spec.scale), spec.channels in CHANNELS) != (3, 3, True):
            raise ValueError("not a preprocessing")
        if not 0 < spec.size <= MAX_SIDE:
            raise ValueError(f"images of {spec.size}")
        return spec


def _ir(units, **kwargs) -> Spec:
    return Spec(
        build=lambda rngs: IR(units, rngs=rngs, **kwargs),
        embedding=512,
        layout="ir",
        size=kwargs.get("size", 112),
        scale=(10 / 128, 10 / 128, 10 / 128),  # as published: 0.078125, so that inputs reach +-9.96
    )


def _inner_ir(units, layout: str, **kwargs) -> Spec:
    """insightface's form: RGB in -1..1."""
    return Spec(
        build=lambda rngs: IR(units, inner_bn=True, rngs=rngs, **kwargs),
        embedding=512,
        layout=layout,
        scale=UNIT,
    )


def _unit(layout: str, family: Callable[..., nnx.Module], *settings, **kwargs) -> Spec:
    """A transformer: RGB in -1..1."""
    return Spec(
        build=lambda rngs: family(*settings, rngs=rngs, **kwargs),
        embedding=512,
        layout=layout,
        scale=UNIT,
    )


def _mobilefacenet(layout, *, crop=None, mean=(127.5,) * 3, scale=(1 / 128,) * 3, **kwargs):
    return Spec(
        build=lambda rngs: MobileFaceNet(rngs=rngs, **kwargs),
        embedding=128,
        layout=layout,
        crop=crop,
        mean=mean,
        scale=scale,
    )


def _target(family: Callable[..., nnx.Module], *settings, layout="", embedding=512, **kwargs):
    """A target as the paper trains it: RGB, (x - 127.5) / 128."""
    return Spec(
        build=lambda rngs: family(*settings, embedding=embedding, rngs=rngs, **kwargs),
        embedding=embedding,
        layout=layout,
    )


def _deepface(family: Callable[..., nnx.Module], layout, embedding, *, size, crop=None, **settings):
    """As the library deepface feeds its Keras networks: BGR, x / 255."""
    return Spec(
        build=lambda rngs: family(embedding=embedding, rngs=rngs, **settings),
        embedding=embedding,
        layout=f"keras_{layout}",
        size=size,
        crop=crop,
        channels="BGR",
        mean=(0.0, 0.0, 0.0),
        scale=(1 / 255, 1 / 255, 1 / 255),
    )


_small = partial(_target, embedding=128, stem_stride=2)
_facenet = partial(_deepface, InceptionResNetV1, "facenet", size=160, bn_scale=False)
_112x96 = partial(_mobilefacenet, "mobilefacenet_blocks", crop=(0, 112, 8, 104), spatial=(7, 6))
_IMAGENET_MEAN = tuple(255 * m for m in (0.485, 0.456, 0.406))
_IMAGENET_SCALE = tuple(1 / (255 * s) for s in (0.229, 0.224, 0.225))

NETWORKS: dict[str, Spec] = {
    "ir_50": _ir(UNITS[50]),
    "ir_101": _ir(UNITS[101]),
    "ir_152": _ir(UNITS[152]),
    "ir_se_50": _ir(UNITS[50], se=True),
    "ir_se_101": _ir(UNITS[101], se=True),
    "ir_50_224": _ir(UNITS[50], size=224),
    "ir_101_224": _ir(UNITS[101], size=224),
    "ir_152_224": _ir(UNITS[152], size=224),
    "ir_se_50_224": _ir(UNITS[50], size=224, se=True),
    "ir_se_101_224": _ir(UNITS[101], size=224, se=True),
    "ir_tiny": _ir((1, 1, 1, 1)),
    "ir_se_tiny": _ir((1, 1, 1, 1), se=True),
    "mobilefacenet_xiaoccer": _112x96(),
    "mobilefacenet_lh377k": _112x96(settings=NARROW_377K),
    "mobilefacenet_lh185k": _112x96(settings=NARROW_185K, stem=32, middle=256),
    "mobilefacenet_bubbliiiing": _mobilefacenet("mobilefacenet_named", scale=UNIT),
    "mobilefacenet_proface": _mobilefacenet("mobilefacenet_renamed", scale=UNIT),
    "mobilefacenet_foamliu": _mobilefacenet(
        "mobilefacenet_v2", mean=_IMAGENET_MEAN, scale=_IMAGENET_SCALE, activation="relu6"
    ),
    **{f"iresnet_{n}": _inner_ir(units, f"iresnet_{n}") for n, units in IRESNET_UNITS.items()},
    "cbam_ir_50": _inner_ir(UNITS[50], "cbam_ir_50"),
    "cbam_ir_se_50": _inner_ir(UNITS[50], "cbam_ir_50", se=True),
    "inception_resnet_v1": Spec(
        build=lambda rngs: InceptionResNetV1(rngs=rngs),
        embedding=512,
        layout="inception_resnet_v1",
        size=160,
        scale=UNIT,
    ),
    **{name: _unit("edgeface", EdgeFace, **kwargs) for name, kwargs in SETTINGS.items()},
    **{name: _unit("vit", VisionTransformer, *size) for name, size in SIZES.items()},
    # Chameleon's pool
    "arcface_resnet_34": _deepface(
        ResNet, "arcface", 512, size=112, units=IRESNET_UNITS[34], embedding_scale=True
    ),
    "facenet": _facenet(128),
    "facenet512": _facenet(512),
    "openface": _deepface(OpenFace, "openface", 128, size=96),
    "vgg_face": _deepface(VGGFace, "vgg_face", 4096, size=224),
    # 47 x 47 with 4 black rows above and below, as deepface fits a square face into 55 x 47
    "deepid": _deepface(DeepID, "deepid", 160, size=47, crop=(-4, 51, 0, 47)),
    "fb_deepface": _deepface(DeepFace, "fb_deepface", 4096, size=152),
    "mobilenet": _target(MobileNet, layout="mxnet_mobilenet"),
    "se_resnet_50": _target(ResNet, se=True, layout="mxnet_resnet"),
    "resnet_50": _target(ResNet, layout="mxnet_resnet"),
    "inception_resnet": _target(InceptionResNet, layout="mxnet_inception_resnet"),
    # for a CPU, trained here: about 30 million multiply-adds a photo
    "ir_small": _small(IR, (1, 1, 2, 1), widths=(16, 32, 64, 96)),
    "mobilenet_small": _small(MobileNet, mobilenet.SMALL, stem=16),
    "se_resnet_small": _small(ResNet, (1, 2, 1, 1), se=True, reduction=4, widths=(16, 32, 64, 96)),
    "inception_resnet_small": _small(InceptionResNet, inception_resnet.SMALL, blocks=(1, 2, 2)),
}
