"""State dicts of insightface's vision transformers, as arcface_torch saves them."""

_BLOCK, _PATH = r"blocks\.(\d+)", r"blocks/\1"

RULES = (
    ("", "tokens", "positions"),
    (r"patch_embed\.proj", "tokens/patches", "conv"),
    (rf"{_BLOCK}\.(norm[12])", rf"{_PATH}/\2", "ln"),
    (rf"{_BLOCK}\.attn\.qkv", rf"{_PATH}/attention/qkv", "dense"),
    (rf"{_BLOCK}\.attn\.proj", rf"{_PATH}/attention/projection", "dense"),
    (rf"{_BLOCK}\.mlp\.(fc[12])", rf"{_PATH}/mlp/\2", "dense"),
    ("norm", "norm", "ln"),
    (r"feature\.0", "feature", "dense"),
    (r"feature\.1", "feature_bn", "bn"),
    (r"feature\.2", "head", "dense"),
    (r"feature\.3", "embedding_bn", "bn"),
)
# mask_token stands for tokens that training leaves out
IGNORED = r"(.*\.)?(num_batches_tracked|mask_token)"
