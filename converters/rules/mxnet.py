"""The paper's targets as MXNet saves them: MobileNet, (SE-)ResNet-50, Inception-ResNet.

Names are those of insightface's symbols: `conv_2_dw_batchnorm_gamma`, `stage1_unit1_se_conv1_bias`,
and for the Inception-ResNet MXNet's own numbers in the order of making, `convolution17_weight`. The
classifier `fc7` is no part of the network. Factors of residual branches are in symbol files only;
files of the Inception-ResNet are taken for ones with the family's usual ones.
"""

from collections.abc import Iterator, Sequence

from converters.rules.ir import Rule
from opom_jax.networks import inception_resnet as inception
from opom_jax.networks import mobilenet

NAME = r"(.*)_(weight|bias|gamma|beta|moving_mean|moving_var)"
CLASSIFIER = r"fc7_(weight|bias)"

HEAD: tuple[Rule, ...] = (
    ("bn1", "head/bn", "mxnet_bn"),
    ("pre_fc1", "head/dense", "flat_dense"),
    ("fc1", "head/embedding_bn", "mxnet_bn_fixed"),
)


def _group(prefix: str, path: str, kind: str = "conv") -> Iterator[Rule]:
    """MobileNet's convolution, BN, PReLU; in the network all three begin with `path`."""
    yield f"{prefix}_conv2d", path, kind
    yield f"{prefix}_batchnorm", f"{path}_bn", "mxnet_bn_fixed"
    yield f"{prefix}_relu", f"{path}_prelu", "mxnet_prelu"


def mobilenet_rules(blocks: int) -> Iterator[Rule]:
    """The stem is conv_1; a block has conv_K_dw and conv_K, K from 2."""
    yield from _group("conv_1", "stem")
    for k in range(blocks):
        yield from _group(f"conv_{k + 2}_dw", f"body/{k}/depthwise", "depthwise")
        yield from _group(f"conv_{k + 2}", f"body/{k}/pointwise")


def _unit(prefix: str, path: str) -> Iterator[Rule]:
    yield rf"{prefix}_(bn[123])", rf"{path}/\1", "mxnet_bn"
    yield rf"{prefix}_(conv[12])", rf"{path}/\1", "conv"
    yield rf"{prefix}_relu1", f"{path}/prelu", "mxnet_prelu"
    yield rf"{prefix}_conv1sc", f"{path}/shortcut", "conv"
    yield rf"{prefix}_sc", f"{path}/shortcut_bn", "mxnet_bn"
    yield rf"{prefix}_se_conv([12])", rf"{path}/se/fc\1", "conv"
    yield rf"{prefix}_se_relu1", f"{path}/se/prelu", "mxnet_prelu"


def resnet_rules(units: Sequence[int]) -> Iterator[Rule]:
    """Units are counted from 1 within a stage, in the network in one row."""
    yield "conv0", "stem", "conv"
    yield "bn0", "stem_bn", "mxnet_bn"
    yield "relu0", "stem_prelu", "mxnet_prelu"
    names = [f"stage{s}_unit{u}" for s, n in enumerate(units, 1) for u in range(1, n + 1)]
    for row, name in enumerate(names):
        yield from _unit(name, f"body/{row}")


def _branches(path: str, shapes: Sequence[Sequence]) -> Iterator[str]:
    for b, branch in enumerate(shapes):
        yield from (f"{path}/branches/{b}/{k}" for k in range(len(branch)))


def _residuals(path: str, count: int, shapes: Sequence[Sequence]) -> Iterator[str]:
    for k in range(count):
        yield from _branches(f"{path}/{k}/branches", shapes)
        yield f"{path}/{k}/up"


def inception_rules(stem: int, blocks: Sequence[int]) -> Iterator[Rule]:
    """Convolutions and their BNs are numbered from 0."""
    large, middle, small = blocks
    paths = (
        *(f"stem/{k}" for k in range(stem)),
        *_branches("mixed", inception.MIXED),
        *_residuals("block_35", large, inception.BLOCK_35),
        *_branches("reduction_a", inception.REDUCTION_A),
        *_residuals("block_17", middle, inception.BLOCK_17),
        *_branches("reduction_b", inception.REDUCTION_B),
        *_residuals("block_8", small, inception.BLOCK_8),
        "last",
    )
    for k, path in enumerate(paths):
        yield f"convolution{k}", f"{path}/conv", "conv"
        yield f"batchnorm{k}", f"{path}/bn", "mxnet_bn_fixed"


RULES: dict[str, tuple[Rule, ...]] = {
    "mobilenet": (*mobilenet_rules(len(mobilenet.STANDARD)), *HEAD),
    "resnet": (*resnet_rules((3, 4, 14, 3)), *HEAD),
    "inception_resnet": (*inception_rules(len(inception.STANDARD.stem), (10, 20, 10)), *HEAD),
}
