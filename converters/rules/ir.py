"""face.evoLVe's IR and IR-SE state dicts, the layout of OPOM's surrogates."""

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
