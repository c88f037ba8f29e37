"""Building blocks that backbones and necks share; convolutions before a norm have no bias."""

from __future__ import annotations

from torch import Tensor, nn

from ctnet.nn import BatchNorm2d


def conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return convolution, norm."""
    return _normed(in_channels, out_channels, kernel, stride, relu=False)


def conv_unit(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return convolution, norm with ReLU."""
    return _normed(in_channels, out_channels, kernel, stride, relu=True)


def _normed(in_channels: int, out_channels: int, kernel: int, stride: int, *, relu: bool) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, BatchNorm2d(out_channels, relu=relu))


class ConvPair(nn.Module):
    """Two 3x3 convolutions beside a shortcut that is given."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(channels, relu=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(channels, relu=True)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return (N,C,H/stride,W/stride)."""
        y = self.bn1(self.conv1(x))
        joined: Tensor = self.bn2(self.conv2(y), shortcut)
        return joined


class BasicBlock(ConvPair):
    """Two 3x3 convolutions around a shortcut of its own."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels, stride)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return (N,C,H/stride,W/stride)."""
        return super().forward(x, x if self.downsample is None else self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut, four times wider outside than inside.

    The 3x3 convolution carries the stride (torchvision), or the first 1x1 one (the paper's code, detectron2).
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, *, stride_in_1x1: bool = False) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = BatchNorm2d(channels, relu=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, second, 1, bias=False)
        self.bn2 = BatchNorm2d(channels, relu=True)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = BatchNorm2d(channels * 4, relu=True)
        self.downsample = _shortcut(in_channels, channels * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,4*C,H/stride,W/stride)."""
        y = self.bn1(self.conv1(x))
        y = self.bn2(self.conv2(y))
        joined: Tensor = self.bn3(self.conv3(y), x if self.downsample is None else self.downsample(x))
        return joined


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return conv_norm(in_channels, out_channels, 1, stride)


def initialise(backbone: nn.Module) -> None:
    """Kaiming-initialise the convolutions (He et al., 2015); zero the last norm weight of each residual block.

    A block that starts as its shortcut trains faster from random weights (Goyal et al., 2017, 5.1).
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)
