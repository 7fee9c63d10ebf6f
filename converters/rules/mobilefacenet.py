"""Three ways to name the layers of a MobileFaceNet."""


def _bottleneck(prefix: str, path: str, names: dict[str, tuple[str, str, str | None]]):
    """Rules of one bottleneck: names gives (convolution, BN, PReLU) of its three parts."""
    kinds = {"expand": "conv", "depthwise": "depthwise", "project": "conv"}
    for part, (conv, bn, prelu) in names.items():
        yield rf"{prefix}\.{conv}", f"{path}/{part}/conv", kinds[part]
        yield rf"{prefix}\.{bn}", f"{path}/{part}/bn", "bn"
        if prelu:
            yield rf"{prefix}\.{prelu}", f"{path}/{part}/activation", "prelu"


def _block(prefix: str, path: str, kind: str = "conv", activation: bool = True):
    """Rules of a block whose parts are called conv, bn and prelu."""
    yield rf"{prefix}\.conv", f"{path}/conv", kind
    yield rf"{prefix}\.bn", f"{path}/bn", "bn"
    if activation:
        yield rf"{prefix}\.prelu", f"{path}/activation", "prelu"


# blocks.0 .. blocks.14, each a numbered Sequential (Xiaoccer's MobileFaceNet_Pytorch)
BLOCKS = (
    *_block("conv1", "stem"),
    *_block("dw_conv1", "stem_depthwise", "depthwise"),
    *_bottleneck(
        r"blocks\.(\d+)\.conv",
        r"body/\1",
        {"expand": ("0", "1", "2"), "depthwise": ("3", "4", "5"), "project": ("6", "7", None)},
    ),
    *_block("conv2", "last"),
    *_block("linear7", "global_depthwise", "depthwise", activation=False),
    (r"linear1\.conv", "head", "conv"),
    (r"linear1\.bn", "embedding_bn", "bn"),
)

# the same under other names (PRO-Face's, of wujiyang/Face_Pytorch)
RENAMED = (
    *_block("conv3", "stem"),
    *_block("dw_conv3", "stem_depthwise", "depthwise"),
    *_bottleneck(
        r"bottlenecks\.(\d+)\.conv",
        r"body/\1",
        {"expand": ("0", "1", "2"), "depthwise": ("3", "4", "5"), "project": ("6", "7", None)},
    ),
    *_block("conv1", "last"),
    *_block("linear_GDConv7", "global_depthwise", "depthwise", activation=False),
    (r"linear_conv1\.conv", "head", "conv"),
    (r"linear_conv1\.bn", "embedding_bn", "bn"),
)

_PARTS = {
    "expand": (r"conv\.conv", r"conv\.bn", r"conv\.prelu"),
    "depthwise": (r"conv_dw\.conv", r"conv_dw\.bn", r"conv_dw\.prelu"),
    "project": (r"project\.conv", r"project\.bn", None),
}
_STAGES = {"conv_23": [0], "conv_3": [1, 2, 3, 4], "conv_34": [5], "conv_4": [*range(6, 12)]}
_STAGES |= {"conv_45": [12], "conv_5": [13, 14]}


def _stages():
    for stage, blocks in _STAGES.items():
        for k, block in enumerate(blocks):
            prefix = stage if len(blocks) == 1 else rf"{stage}\.model\.{k}"
            yield from _bottleneck(prefix, f"body/{block}", _PARTS)


# conv_23, conv_3.model.0, ... (the layout of InsightFace_Pytorch, here bubbliiiing's)
NAMED = (
    *_block("conv1", "stem"),
    *_block("conv2_dw", "stem_depthwise", "depthwise"),
    *_stages(),
    ("sep", "last/conv", "conv"),
    ("sep_bn", "last/bn", "bn"),
    ("prelu", "last/activation", "prelu"),
    ("GDC_dw", "global_depthwise/conv", "depthwise"),
    ("GDC_bn", "global_depthwise/bn", "bn"),
    ("features", "head", "conv"),
    ("last_bn", "embedding_bn", "bn"),
)

# the MobileNetV2-style network (foamliu)
V2 = (
    (r"conv1\.0", "stem/conv", "conv"),
    (r"conv1\.1", "stem/bn", "bn"),
    (r"dw_conv\.depthwise", "stem_depthwise/conv", "depthwise"),
    (r"dw_conv\.bn1", "stem_depthwise/bn", "bn"),
    (r"dw_conv\.pointwise", "stem_pointwise/conv", "conv"),
    (r"dw_conv\.bn2", "stem_pointwise/bn", "bn"),
    *_bottleneck(
        r"features\.(\d+)\.conv",
        r"body/\1",
        {
            "expand": (r"0\.0", r"0\.1", None),
            "depthwise": (r"1\.0", r"1\.1", None),
            "project": ("2", "3", None),
        },
    ),
    (r"conv2\.0", "last/conv", "conv"),
    (r"conv2\.1", "last/bn", "bn"),
    (r"gdconv\.depthwise", "global_depthwise/conv", "depthwise"),
    (r"gdconv\.bn", "global_depthwise/bn", "bn"),
    ("conv3", "head", "conv"),
    ("bn", "embedding_bn", "bn"),
)
