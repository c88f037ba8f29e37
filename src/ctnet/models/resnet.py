"""ResNet trunks (He et al., 2015) in torchvision's layout: in a bottleneck the 3x3 convolution carries the stride."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class ConvPair(nn.Module):
    """Two 3x3 convolutions beside a shortcut that is given."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return (N,C,H/stride,W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + shortcut, inplace=True)


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
    """1x1, 3x3, 1x1 convolutions around a shortcut, four times wider outside than inside."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.downsample = _shortcut(in_channels, channels * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,4*C,H/stride,W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A trunk that returns its last map, stride 32, with `out_channels` channels."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 << stage
            blocks = [block(channels, width, 1 if stage == 0 else 2)]
            channels = width * block.expansion
            blocks += [block(channels, width, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # A block that starts as its shortcut trains faster from random weights (Goyal et al., 2017, 5.1).
            elif isinstance(module, (BasicBlock, Bottleneck)):
                nn.init.zeros_((module.bn2 if isinstance(module, BasicBlock) else module.bn3).weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,out_channels,H/32,W/32) of a normalised picture batch (N,3,H,W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x


def build_resnet(name: str) -> ResNet:
    """Return the trunk of that name (a key of `DEPTHS`), randomly initialised."""
    block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
    return ResNet(block, DEPTHS[name])
