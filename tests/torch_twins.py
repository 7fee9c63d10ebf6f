"""PyTorch twins of the supported networks, for parity tests.

State-dict names and shapes are the published checkpoints' own, so every checkpoint loads with
`strict=True`. Axis letters: `B` batch, `H W` image, `D` embedding. Embeddings are raw (not
L2-normalised); call `.eval()` before comparing.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

# (expansion, channels, repeats, first stride) of each stage of inverted residuals.
Settings = Sequence[tuple[int, int, int, int]]
STANDARD: Settings = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
ORIGINAL377K: Settings = (
    (2, 16, 5, 2),
    (4, 48, 1, 2),
    (2, 48, 6, 1),
    (4, 64, 1, 2),
    (2, 128, 2, 1),
)
SMALL185K: Settings = ((2, 16, 5, 2), (4, 32, 1, 2), (2, 32, 5, 1), (4, 48, 1, 2), (2, 96, 2, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Bias-free convolution, zero-padded by half of its kernel."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


# IR (face.evoLVe), the OPOM surrogates


class SqueezeExcite(nn.Module):
    """Channel attention: f32[B,C,H,W] -> f32[B,C,H,W]."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = _conv(channels, channels // reduction, 1)
        self.fc2 = _conv(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class IRUnit(nn.Module):
    """BN, conv, PReLU, strided conv, BN (and SE), plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, se: bool) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # plain subsampling
        else:
            self.shortcut_layer = nn.Sequential(
                _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )
        layers = [
            nn.BatchNorm2d(inputs),
            _conv(inputs, outputs, 3),
            nn.PReLU(outputs),
            _conv(outputs, outputs, 3, stride),
            nn.BatchNorm2d(outputs),
        ]
        if se:
            layers.append(SqueezeExcite(outputs))
        self.res_layer = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class IR(nn.Module):
    """IR / IR-SE network: RGB f32[B,3,size,size] in 0..255 -> f32[B,512].

    Args:
      units: residual units of each of the four stages.
      size: height and width of the input in pixels.
      se: squeeze-and-excite at the end of every unit.
      widths: channels of the four stages; the stem has `widths[0]`.
    """

    def __init__(
        self,
        units: Sequence[int],
        size: int = 112,
        se: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__()
        side = size
        for _ in widths:
            side = -(-side // 2)
        # The published order (output_layer before body) fixes the order of the state dict's keys.
        self.input_layer = nn.Sequential(
            _conv(3, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, 512),
            nn.BatchNorm1d(512),
        )
        body = []
        inputs = widths[0]
        for count, width in zip(units, widths, strict=True):
            for unit in range(count):
                body.append(IRUnit(inputs, width, 2 if unit == 0 else 1, se))
                inputs = width
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 127.5) * 0.078125  # 10/128, as published
        return self.output_layer(self.body(self.input_layer(x)))


ir_50 = partial(IR, (3, 4, 14, 3))
ir_101 = partial(IR, (3, 13, 30, 3))
ir_152 = partial(IR, (3, 8, 36, 3))
ir_se_50 = partial(IR, (3, 4, 14, 3), se=True)
ir_se_101 = partial(IR, (3, 13, 30, 3), se=True)
ir_tiny = partial(IR, (1, 1, 1, 1))


# MobileFaceNet, names as Xiaoccer's


class ConvBlock(nn.Module):
    """conv, BN and, unless `linear`, PReLU; keys conv, bn, prelu."""

    def __init__(self, conv: nn.Conv2d, linear: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        if not linear:
            self.prelu = nn.PReLU(conv.out_channels)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.linear else self.prelu(x)


class Bottleneck(nn.Module):
    """Inverted residual as one Sequential, `conv`: expand, depthwise, project (linear)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv(inputs, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            _conv(hidden, hidden, 3, stride, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            _conv(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileFaceNetXiaoccer(nn.Module):
    """RGB (x-127.5)/128, f32[B,3,112,96] -> f32[B,128].

    Args:
      settings: the stages of bottlenecks.
      stem: channels of the first two convolutions.
      mid: channels before the global depthwise convolution.
      spatial: height and width of the last feature map, a sixteenth of the input's.
    """

    def __init__(
        self, settings: Settings, stem: int, mid: int, spatial: tuple[int, int] = (7, 6)
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(_conv(3, stem, 3, 2))
        self.dw_conv1 = ConvBlock(_conv(stem, stem, 3, groups=stem))
        blocks = []
        inputs = stem
        for expansion, channels, repeats, stride in settings:
            for i in range(repeats):
                blocks.append(Bottleneck(inputs, channels, stride if i == 0 else 1, expansion))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = ConvBlock(_conv(inputs, mid, 1))
        self.linear7 = ConvBlock(nn.Conv2d(mid, mid, spatial, groups=mid, bias=False), linear=True)
        self.linear1 = ConvBlock(_conv(mid, 128, 1), linear=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.dw_conv1(self.conv1(x)))
        return self.linear1(self.linear7(self.conv2(x))).flatten(1)


mobilefacenet_xiaoccer = partial(MobileFaceNetXiaoccer, STANDARD, 64, 512)
mobilefacenet_original377k = partial(MobileFaceNetXiaoccer, ORIGINAL377K, 64, 512)
mobilefacenet_small185k = partial(MobileFaceNetXiaoccer, SMALL185K, 32, 256)


# MobileFaceNet, names as bubbliiiing's


class DepthWise(nn.Module):
    """Inverted residual of three ConvBlocks: conv, conv_dw, project."""

    def __init__(self, inputs: int, outputs: int, hidden: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = stride == 1
        self.conv = ConvBlock(_conv(inputs, hidden, 1))
        self.conv_dw = ConvBlock(_conv(hidden, hidden, 3, stride, groups=hidden))
        self.project = ConvBlock(_conv(hidden, outputs, 1), linear=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Residuals(nn.Module):
    """`repeats` stride-1 DepthWise blocks in the Sequential `model`."""

    def __init__(self, channels: int, hidden: int, repeats: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(channels, channels, hidden) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MobileFaceNetBubbliiiing(nn.Module):
    """RGB x/127.5-1, f32[B,3,112,112] -> f32[B,128].

    The keys have no prefix; the published checkpoint's carry "arcface." before each of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(_conv(3, 64, 3, 2))
        self.conv2_dw = ConvBlock(_conv(64, 64, 3, groups=64))
        self.conv_23 = DepthWise(64, 64, 128, stride=2)
        self.conv_3 = Residuals(64, 128, 4)
        self.conv_34 = DepthWise(64, 128, 256, stride=2)
        self.conv_4 = Residuals(128, 256, 6)
        self.conv_45 = DepthWise(128, 128, 512, stride=2)
        self.conv_5 = Residuals(128, 256, 2)
        self.sep = _conv(128, 512, 1)
        self.sep_bn = nn.BatchNorm2d(512)
        self.prelu = nn.PReLU(512)
        self.GDC_dw = nn.Conv2d(512, 512, 7, groups=512, bias=False)
        self.GDC_bn = nn.BatchNorm2d(512)
        self.features = _conv(512, 128, 1)
        self.last_bn = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        x = self.GDC_bn(self.GDC_dw(self.prelu(self.sep_bn(self.sep(x)))))
        return self.last_bn(self.features(x)).flatten(1)


# MobileFaceNet, names as foamliu's


def _conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Sequential of conv (0), BN (1) and ReLU6."""
    return nn.Sequential(
        _conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6()
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block; the depthwise and expanding convolutions end in ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv_bn_relu6(inputs, hidden, 1),
            _conv_bn_relu6(hidden, hidden, 3, stride, hidden),
            _conv(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class SeparableConv(nn.Module):
    """Depthwise then pointwise convolution, each with BN and ReLU (not ReLU6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, 3, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = _conv(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class GlobalDepthwise(nn.Module):
    """7x7 depthwise convolution without padding, and BN: f32[B,C,7,7] -> f32[B,C,1,1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.depthwise(x))


class MobileFaceNetFoamliu(nn.Module):
    """RGB x/255 with ImageNet mean and std, f32[B,3,112,112] -> f32[B,128]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv_bn_relu6(3, 64, 3, 2)
        self.dw_conv = SeparableConv(64)
        features = []
        inputs = 64
        for expansion, channels, repeats, stride in STANDARD:
            for i in range(repeats):
                first = stride if i == 0 else 1
                features.append(InvertedResidual(inputs, channels, first, expansion))
                inputs = channels
        self.features = nn.Sequential(*features)
        self.conv2 = _conv_bn_relu6(inputs, 512, 1)
        self.gdconv = GlobalDepthwise(512)
        self.conv3 = nn.Conv2d(512, 128, 1)
        self.bn = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return self.bn(self.conv3(self.gdconv(x))).flatten(1)
