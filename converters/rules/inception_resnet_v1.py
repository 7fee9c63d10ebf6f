"""facenet-pytorch's InceptionResnetV1; its classifier `logits` is not part of the network."""

from collections.abc import Iterator

STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b")
REPEATED = {"repeat_1": "block_35", "repeat_2": "block_17", "repeat_3": "block_8"}


def _block(prefix: str, path: str) -> Iterator[tuple[str, str, str]]:
    yield rf"{prefix}\.conv", f"{path}/conv", "conv"
    yield rf"{prefix}\.bn", f"{path}/bn", "bn"


def _rules() -> Iterator[tuple[str, str, str]]:
    for k, name in enumerate(STEM):
        yield from _block(name, f"stem/{k}")
    residuals = {rf"{a}\.(\d+)": rf"{b}/\1/" for a, b in REPEATED.items()}
    for prefix, path in (residuals | {"(block8)": "last/"}).items():
        yield from _block(rf"{prefix}\.branch0", rf"{path}branches/branches/0/0")
        yield from _block(rf"{prefix}\.branch(\d)\.(\d)", rf"{path}branches/branches/\2/\3")
        yield rf"{prefix}\.conv2d", f"{path}up", "conv"
    yield from _block(r"mixed_6a\.branch0", "reduction_a/branches/0/0")
    yield from _block(r"mixed_6a\.branch(\d)\.(\d)", r"reduction_a/branches/\1/\2")
    yield from _block(r"mixed_7a\.branch(\d)\.(\d)", r"reduction_b/branches/\1/\2")
    yield "last_linear", "head", "flat_dense"
    yield "last_bn", "embedding_bn", "bn"


RULES = tuple(_rules())
