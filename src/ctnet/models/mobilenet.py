"""MobileNetV2 (Sandler et al., "Inverted Residuals and Linear Bottlenecks", 2018), the backbone for small machines."""

from __future__ import annotations

from torch import Tensor, nn

from ctnet.config import CenterNetModel
from ctnet.types import FeatureSpec

# Per row of blocks, as in the paper's table 2: expansion, width, blocks, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Indices in `features` of the blocks whose maps are returned: the last at strides 4, 8, 16 and 32.
TAPS = (3, 6, 13, 17)


def _unit(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, relu6: bool
) -> nn.Sequential:
    """Return convolution, norm, ReLU6 or ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True) if relu6 else nn.ReLU(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without activation; around it a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int, *, relu6: bool) -> None:
        super().__init__()
        wide = in_channels * expansion
        widen = [_unit(in_channels, wide, 1, relu6=relu6)] if expansion > 1 else []
        narrow = nn.Conv2d(wide, channels, 1, bias=False)
        each = _unit(wide, wide, 3, stride, groups=wide, relu6=relu6)
        self.conv = nn.Sequential(*widen, each, narrow, nn.BatchNorm2d(channels))
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,C,H/stride,W/stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """The backbone; returns the maps at strides 4, 8, 16 and 32 with 24, 32, 96 and 320 channels."""

    def __init__(self, *, relu6: bool = True) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_unit(3, 32, 3, 2, relu6=relu6)]
        channels, reduction, specs = 32, 2, []
        for expansion, width, count, stride in ROWS:
            reduction *= stride
            for i in range(count):
                if len(blocks) in TAPS:
                    specs.append(FeatureSpec(width, reduction))
                blocks.append(InvertedResidual(channels, width, 1 if i else stride, expansion, relu6=relu6))
                channels = width
        self.specs = tuple(specs)
        self.features = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four maps of a normalised image batch (N,3,H,W), finest first."""
        maps = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in TAPS:
                maps.append(x)
        return maps


def build_mobilenetv2(model: CenterNetModel) -> MobileNetV2:
    """Return the backbone, randomly initialised."""
    return MobileNetV2(relu6=model.relu6)
