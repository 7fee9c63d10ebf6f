"""PyTorch twins of the transformers, for parity tests; see `torch_twins`.

State-dict names and shapes are the published checkpoints' own: insightface's vision transformers,
and EdgeFace, which is timm's EdgeNeXt under the prefix "model.".
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """fc1, activation, fc2 over the last axis."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


# insightface's vision transformers


class Attention(nn.Module):
    """Of every token to all: f32[B,N,width] kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm block of attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """RGB x/127.5-1, f32[B,3,size,size] -> f32[B,512]; patches of 9 x 9."""

    def __init__(self, width: int, depth: int, size: int = 112, heads: int = 8) -> None:
        super().__init__()
        tokens = (size // 9) ** 2
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 9, 9)})
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # for training alone
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(tokens * width, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, 512, bias=False),
            nn.BatchNorm1d(512, eps=2e-5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["proj"](x).flatten(2).mT + self.pos_embed
        return self.feature(self.norm(self.blocks(x)).flatten(1))


# EdgeFace


class ConvBlock(nn.Module):
    """Depthwise convolution, then LN and MLP at every pixel: f32[B,C,H,W] kept."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, nn.GELU())
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.mlp(y)).permute(0, 3, 1, 2)


class Positions(nn.Module):
    """Sines and cosines of row and column, 32 each, through a 1x1 convolution: [1,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(64, channels, 1)

    def forward(self, height: int, width: int) -> Tensor:
        def waves(count):
            angle = 2 * math.pi * torch.arange(1, count + 1) / (count + 1e-6)
            slow = angle[:, None] / 10000 ** (torch.arange(0, 32, 2) / 32)
            return torch.stack([slow.sin(), slow.cos()], 2).flatten(1).T

        rows = waves(height)[:, :, None].expand(-1, -1, width)
        columns = waves(width)[:, None].expand(-1, height, -1)
        found = torch.cat([rows, columns])[None]
        return self.token_projection(found.to(self.token_projection.weight.dtype))


class CrossCovariance(nn.Module):
    """Attention among channels: f32[B,N,C] kept."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        heads = len(self.temperature)
        q, k, v = self.qkv(x).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 4, 1)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        weights = (q @ k.mT * self.temperature).softmax(-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).flatten(2))


class SplitTransposeBlock(nn.Module):
    """Chained depthwise convolutions of channel groups, cross covariance, MLP."""

    def __init__(self, channels: int, groups: int, heads: int, positions: bool) -> None:
        super().__init__()
        width = -(-channels // groups)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, 1, 1, groups=width) for _ in range(groups - 1)
        )
        if positions:
            self.pos_embd = Positions(channels)
        self.norm_xca = nn.LayerNorm(channels, eps=1e-6)
        self.gamma_xca = nn.Parameter(torch.ones(channels))
        self.xca = CrossCovariance(channels, heads)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, nn.GELU())
        self.gamma = nn.Parameter(torch.ones(channels))
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        *parts, last = x.chunk(len(self.convs) + 1, 1)
        done = [self.convs[0](parts[0])]
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            done.append(conv(done[-1] + part))
        y = torch.cat([*done, last], 1).flatten(2).mT
        if self.positions:
            y = y + self.pos_embd(height, width).flatten(2).mT
        y = y + self.gamma_xca * self.xca(self.norm_xca(y))
        y = self.gamma * self.mlp(self.norm(y))
        return x + y.mT.unflatten(2, (height, width))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of f32[B,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LowRank(nn.Module):
    """What EdgeFace puts in place of a linear layer; its rank is a share of the smaller side."""

    def __init__(self, linear: nn.Linear, share: float) -> None:
        super().__init__()
        rank = max(2, int(min(linear.in_features, linear.out_features) * share))
        self.linear1 = nn.Linear(linear.in_features, rank, bias=False)
        self.linear2 = nn.Linear(rank, linear.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


def lower_ranks(module: nn.Module, share: float) -> None:
    """Replaces every linear layer of the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, LowRank(child, share))
        else:
            lower_ranks(child, share)


class EdgeNeXt(nn.Module):
    """timm's EdgeNeXt: f32[B,3,H,W] -> f32[B,512].

    Args:
      widths: channels of the four stages.
      depths: their blocks; the last one of the later three is a `SplitTransposeBlock`.
      heads: of the cross covariance.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], heads: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0], 1e-6))
        self.stages = nn.Sequential()
        for k, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = nn.Sequential(*(ConvBlock(width, 3 + 2 * k) for _ in range(depth - (k > 0))))
            stage = nn.Sequential()
            if k > 0:
                before = widths[k - 1]
                down = (LayerNorm2d(before, 1e-6), nn.Conv2d(before, width, 2, 2))
                stage.add_module("downsample", nn.Sequential(*down))
                blocks.append(SplitTransposeBlock(width, max(2, k + 1), heads, k == 1))
            stage.add_module("blocks", blocks)
            self.stages.append(stage)
        self.head = nn.ModuleDict(
            {"norm": LayerNorm2d(widths[-1], 1e-6), "fc": nn.Linear(widths[-1], 512)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x)).mean((2, 3), keepdim=True)
        return self.head["fc"](self.head["norm"](x).flatten(1))


class EdgeFace(nn.Module):
    """RGB x/127.5-1, f32[B,3,112,112] -> f32[B,512]; with `share`, all linear layers low-rank."""

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], heads: int, share: float | None = None
    ) -> None:
        super().__init__()
        self.model = EdgeNeXt(widths, depths, heads)
        if share is not None:
            lower_ranks(self.model, share)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)
