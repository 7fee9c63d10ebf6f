"""State dicts of EdgeFace: timm's EdgeNeXt, whose dense layers may be pairs of low rank."""

from collections.abc import Iterator

Rule = tuple[str, str, str]

_STAGE, _IN_STAGE = r"stages\.(\d)", r"stages/\1"
_BLOCK, _PATH = rf"{_STAGE}\.blocks\.(\d+)", rf"{_IN_STAGE}/blocks/\2"


def _dense(prefix: str, path: str) -> Iterator[Rule]:
    """A dense layer, or the two in its place."""
    yield prefix, path, "dense"
    yield rf"{prefix}\.(?P<half>linear[12])", rf"{path}/\g<half>", "dense"


RULES = (
    (r"stem\.0", "stem", "conv"),
    (r"stem\.1", "stem_norm", "ln"),
    (rf"{_STAGE}\.downsample\.0", f"{_IN_STAGE}/norm", "ln"),
    (rf"{_STAGE}\.downsample\.1", f"{_IN_STAGE}/down", "conv"),
    (rf"{_BLOCK}\.conv_dw", f"{_PATH}/depthwise", "depthwise"),
    (rf"{_BLOCK}\.convs\.(\d)", rf"{_PATH}/convs/\3", "depthwise"),
    (rf"{_BLOCK}\.pos_embd\.token_projection", f"{_PATH}/positions", "conv"),
    (rf"{_BLOCK}\.norm_xca", f"{_PATH}/norm", "ln"),
    *_dense(rf"{_BLOCK}\.xca\.qkv", f"{_PATH}/attention/qkv"),
    *_dense(rf"{_BLOCK}\.xca\.proj", f"{_PATH}/attention/projection"),
    (rf"{_BLOCK}\.xca", f"{_PATH}/attention", "temperature"),
    (rf"{_BLOCK}", _PATH, "gains"),
    (rf"{_BLOCK}\.norm", f"{_PATH}/branch/norm", "ln"),
    *_dense(rf"{_BLOCK}\.mlp\.(fc[12])", rf"{_PATH}/branch/mlp/\3"),
    (r"head\.norm", "norm", "ln"),
    *_dense(r"head\.fc", "head"),
)
