"""State dicts of IR networks: face.evoLVe's (OPOM's surrogates), insightface's iresnet, and
CBAMResNet's ir and ir_se (PRO-Face)."""

from collections.abc import Callable, Iterator

Rule = tuple[str, str, str]

_UNIT, _PATH = r"body\.(\d+)", r"body/\1"

RULES = (
    (r"input_layer\.0", "stem", "conv"),
    (r"input_layer\.1", "stem_bn", "bn"),
    (r"input_layer\.2", "stem_prelu", "prelu"),
    (rf"{_UNIT}\.shortcut_layer\.0", rf"{_PATH}/shortcut", "conv"),
    (rf"{_UNIT}\.shortcut_layer\.1", rf"{_PATH}/shortcut_bn", "bn"),
    (rf"{_UNIT}\.res_layer\.0", rf"{_PATH}/bn1", "bn"),
    (rf"{_UNIT}\.res_layer\.1", rf"{_PATH}/conv1", "conv"),
    (rf"{_UNIT}\.res_layer\.2", rf"{_PATH}/prelu", "prelu"),
    (rf"{_UNIT}\.res_layer\.3", rf"{_PATH}/conv2", "conv"),
    (rf"{_UNIT}\.res_layer\.4", rf"{_PATH}/bn2", "bn"),
    (rf"{_UNIT}\.res_layer\.5\.(fc1|fc2)", rf"{_PATH}/se/\2", "conv"),
    (r"output_layer\.0", "head_bn", "bn"),
    (r"output_layer\.3", "head", "flat_dense"),
    (r"output_layer\.4", "embedding_bn", "bn"),
)

# insightface's and CBAMResNet's files count the units within each of four stages, `layerN.K`; a
# network has them in one row. A pattern cannot add, so every unit has rules of its own.


def staged(units: tuple[int, ...], unit: Callable[[str, str], Iterator[Rule]]) -> Iterator[Rule]:
    """unit(prefix in the file, path in the network) for every unit."""
    row = 0
    for stage, count in enumerate(units, 1):
        for k in range(count):
            yield from unit(rf"layer{stage}\.{k}", f"body/{row}")
            row += 1


def _iresnet_unit(prefix: str, path: str) -> Iterator[Rule]:
    parts = {"bn1": "bn1", "bn2": "inner_bn", "bn3": "bn2"}
    yield from ((rf"{prefix}\.{theirs}", f"{path}/{ours}", "bn") for theirs, ours in parts.items())
    yield rf"{prefix}\.(conv[12])", rf"{path}/\1", "conv"
    yield rf"{prefix}\.prelu", f"{path}/prelu", "prelu"
    yield rf"{prefix}\.downsample\.0", f"{path}/shortcut", "conv"
    yield rf"{prefix}\.downsample\.1", f"{path}/shortcut_bn", "bn"


def iresnet(units: tuple[int, ...]) -> tuple[Rule, ...]:
    """insightface's iresnet, as arcface_torch saves it."""
    return (
        ("conv1", "stem", "conv"),
        ("bn1", "stem_bn", "bn"),
        ("prelu", "stem_prelu", "prelu"),
        *staged(units, _iresnet_unit),
        ("bn2", "head_bn", "bn"),
        ("fc", "head", "flat_dense"),
        ("features", "embedding_bn", "bn"),
    )


def _cbam_unit(prefix: str, path: str) -> Iterator[Rule]:
    names = {0: "bn1", 1: "conv1", 2: "inner_bn", 3: "prelu", 4: "conv2", 5: "bn2"}
    for k, name in names.items():
        kind = "prelu" if name == "prelu" else "conv" if name.startswith("conv") else "bn"
        yield rf"{prefix}\.res_layer\.{k}", f"{path}/{name}", kind
    yield rf"{prefix}\.res_layer\.6\.(fc[12])", rf"{path}/se/\1", "conv"
    yield rf"{prefix}\.shortcut_layer\.0", f"{path}/shortcut", "conv"
    yield rf"{prefix}\.shortcut_layer\.1", f"{path}/shortcut_bn", "bn"


def cbam(units: tuple[int, ...]) -> tuple[Rule, ...]:
    """CBAMResNet's ir and ir_se."""
    ends = tuple(rule for rule in RULES if not rule[1].startswith("body"))
    return (*ends, *staged(units, _cbam_unit))
