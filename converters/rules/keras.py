"""The Keras networks of the library deepface, by its names of layers.

Layers that deepface leaves to Keras to name are numbered from 0, see `formats/keras_names.py`.
"""

from collections.abc import Iterator

from opom_jax.networks.openface import MODULES

Rule = tuple[str, str, str]
CONV, DENSE, BN, PRELU, LOCAL = (
    f"keras_{kind}" for kind in ("conv", "dense", "bn", "prelu", "local")
)


def _arcface(units: tuple[int, ...] = (3, 4, 6, 3)) -> Iterator[Rule]:
    for layer, kind in (("conv", CONV), ("bn", BN), ("prelu", PRELU)):
        yield f"conv1_{layer}", "stem" if layer == "conv" else f"stem_{layer}", kind
    names = (f"conv{stage}_block{k}" for stage, n in enumerate(units, 2) for k in range(1, n + 1))
    for row, name in enumerate(names):
        yield f"{name}_0_conv", f"body/{row}/shortcut", CONV
        yield f"{name}_0_bn", f"body/{row}/shortcut_bn", BN
        yield rf"{name}_([12])_conv", rf"body/{row}/conv\1", CONV
        yield rf"{name}_([123])_bn", rf"body/{row}/bn\1", BN
        yield f"{name}_1_prelu", f"body/{row}/prelu", PRELU
    yield "batch_normalization_0", "head/bn", BN
    yield "dense_0", "head/dense", DENSE
    yield "embedding", "head/embedding_bn", BN


_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3", "4b_3x3")
_REPEATED = {"Block35": ("block_35", 5), "Block17": ("block_17", 10), "Block8": ("block_8", 5)}
# branch -> its convolutions, as (place, name)
_REDUCTIONS = {
    "Mixed_6a": ("reduction_a", {0: ("1a_3x3",), 1: ("0a_1x1", "0b_3x3", "1a_3x3")}),
    "Mixed_7a": (
        "reduction_b",
        {0: ("0a_1x1", "1a_3x3"), 1: ("0a_1x1", "1a_3x3"), 2: ("0a_1x1", "0b_3x3", "1a_3x3")},
    ),
}


def _block(name: str, path: str) -> Iterator[Rule]:
    yield name, f"{path}/conv", CONV
    yield f"{name}_BatchNorm", f"{path}/bn", BN


def _residual(name: str, path: str, number: int) -> Iterator[Rule]:
    """The second branch of deepface's Block17_K and Block8_K is called Branch_K, or Branch_1."""
    yield from _block(f"{name}_Branch_0_Conv2d_1x1", f"{path}/branches/branches/0/0")
    numbers = {1: "1", 2: "2"} if name.startswith("Block35") else {1: f"(?:1|{number})"}
    for branch, pattern in numbers.items():
        for k, letter in enumerate("abc"):
            convolution = rf"{name}_Branch_{pattern}_Conv2d_0{letter}_\dx\d"
            yield from _block(convolution, f"{path}/branches/branches/{branch}/{k}")
    yield f"{name}_Conv2d_1x1", f"{path}/up", CONV


def _facenet() -> Iterator[Rule]:
    for k, name in enumerate(_STEM):
        yield from _block(f"Conv2d_{name}", f"stem/{k}")
    for name, (path, count) in _REPEATED.items():
        for k in range(count):
            yield from _residual(f"{name}_{k + 1}", f"{path}/{k}", k + 1)
    yield from _residual("Block8_6", "last", 6)
    for name, (path, branches) in _REDUCTIONS.items():
        for branch, convolutions in branches.items():
            for k, convolution in enumerate(convolutions):
                prefix = f"{name}_Branch_{branch}_Conv2d_{convolution}"
                yield from _block(prefix, f"{path}/branches/{branch}/{k}")
    yield "Bottleneck", "head", DENSE
    yield "Bottleneck_BatchNorm", "embedding_bn", BN


def _openface() -> Iterator[Rule]:
    yield r"conv([123])", r"conv\1/conv", CONV
    yield r"bn([123])", r"conv\1/bn", BN
    branches = {"3x3_{}1": "three/0", "3x3_{}2": "three/1", "5x5_{}1": "five/0"}
    branches |= {"5x5_{}2": "five/1", "pool_{}": "pooled", "1x1_{}": "point"}
    for k, module in enumerate(MODULES):
        for name, path in branches.items():
            for layer, kind in (("conv", CONV), ("bn", BN)):
                prefix = f"inception_{module}_{name.format(layer)}"
                yield prefix, f"inception/{k}/{path}/{layer}", kind
    yield "dense_layer", "head", DENSE


ARCFACE, FACENET, OPENFACE = tuple(_arcface()), tuple(_facenet()), tuple(_openface())
VGG_FACE = (
    (r"conv2d_(\d|1[0-2])", r"convs/\1", CONV),
    ("conv2d_13", "fc6", CONV),
    ("conv2d_14", "fc7", CONV),
)
DEEPID = (
    *((f"Conv{k + 1}", f"convs/{k}", CONV) for k in range(4)),
    (r"(fc1[12])", r"\1", DENSE),
)
FB_DEEPFACE = (
    ("C1", "c1", CONV),
    ("C3", "c3", CONV),
    *((f"L{k}", f"l{k}", LOCAL) for k in (4, 5, 6)),
    ("F7", "f7", DENSE),
)
