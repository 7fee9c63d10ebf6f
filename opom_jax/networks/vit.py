"""Vision transformers for faces, in insightface's form (arcface_torch; also the weights of LVFace).

Source: Dosovitskiy et al., ICLR 2021, without a class token: patches of 9 x 9 pixels make 144
tokens of a 112 x 112 image (the last four rows and columns are in none), learned positions,
pre-norm blocks with ReLU6, and a head over all tokens at once. While training, insightface also
leaves out tokens and whole blocks at random; that is not here.
"""

import jax
from flax import nnx

from opom_jax.draws import drawn
from opom_jax.networks.layers import MXNET_EPSILON, batch_norm
from opom_jax.networks.transformer import Dense, Mlp, Patches, layer_norm

# name -> (numbers a token, blocks)
SIZES = {"vit_t": (256, 12), "vit_s": (512, 12), "vit_b": (512, 24), "vit_l": (768, 24)}
EPSILON = 1e-5  # of the layer norms


class Tokens(nnx.Module):
    """[B,size,size,3] -> [B,N,width]: patches from left to right and down, and their positions."""

    def __init__(self, size: int, patch: int, width: int, *, rngs: nnx.Rngs):
        self.patches = Patches(3, width, patch, rngs=rngs)
        init = nnx.initializers.truncated_normal(0.02)
        shape = (1, (size // patch) ** 2, width)
        self.positions = nnx.Param(drawn(init, rngs.params(), shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x)
        return x.reshape(x.shape[0], -1, x.shape[3]) + self.positions[...]


class Attention(nnx.Module):
    """Softmax attention of every token to all, [B,N,width] kept."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.qkv = Dense(width, 3 * width, bias=False, rngs=rngs)
        self.projection = Dense(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        attended = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return self.projection(attended.reshape(x.shape))


class Block(nnx.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); [B,N,width] kept."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(width, epsilon=EPSILON, rngs=rngs)
        self.attention = Attention(width, heads, rngs=rngs)
        self.norm2 = layer_norm(width, epsilon=EPSILON, rngs=rngs)
        self.mlp = Mlp(width, 4 * width, jax.nn.relu6, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nnx.Module):
    """Input [B,size,size,3] (already scaled) -> embedding [B,embedding] and named taps.

    Args:
      width: numbers of a token; a multiple of `heads`.
      depth: blocks.
      size: side of the input.
      patch: side of a patch.
      heads: of the attention.
      embedding: length of the embedding.
      rngs: random streams for the initial weights.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        size: int = 112,
        patch: int = 9,
        heads: int = 8,
        embedding: int = 512,
        rngs: nnx.Rngs,
    ):
        self.tokens = Tokens(size, patch, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = layer_norm(width, epsilon=EPSILON, rngs=rngs)
        self.feature = Dense((size // patch) ** 2 * width, width, bias=False, rngs=rngs)
        self.feature_bn = batch_norm(width, epsilon=MXNET_EPSILON, rngs=rngs)
        self.head = Dense(width, embedding, bias=False, rngs=rngs)
        self.embedding_bn = batch_norm(embedding, epsilon=MXNET_EPSILON, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = self.tokens(x)
        taps = {"tokens": x}
        for k, block in enumerate(self.blocks):
            x = taps[f"blocks/{k}"] = block(x)
        x = self.norm(x)
        x = self.feature_bn(self.feature(x.reshape(x.shape[0], -1)))
        return self.embedding_bn(self.head(x)), taps
