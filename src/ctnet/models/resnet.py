"""ResNet backbones (He et al., 2015)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ctnet.config import Model
from ctnet.models.blocks import BasicBlock, Bottleneck, initialise
from ctnet.nn import BatchNorm2d, MaxPool2d
from ctnet.types import FeatureSpec

BASIC = ("resnet18", "resnet34")  # whose blocks are basic, not bottlenecks
DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """The backbone; returns the maps that `specs` describe, at strides 4, 8, 16 and 32.

    `stride_in_1x1`: the first 1x1 convolution of a bottleneck has the stride, else the 3x3 one.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...], *, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(64, relu=True)
        self.maxpool = MaxPool2d(3, 2, 1)
        make = partial(Bottleneck, stride_in_1x1=stride_in_1x1) if block is Bottleneck else block
        channels = 64
        specs = []
        for stage, depth in enumerate(depths):
            width = 64 << stage
            blocks = [make(channels, width, 1 if stage == 0 else 2)]
            channels = width * block.expansion
            blocks += [make(channels, width, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            specs.append(FeatureSpec(channels, 4 << stage))
        self.specs = tuple(specs)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four maps of a normalised image batch (N,3,H,W), finest first."""
        x = self.maxpool(self.bn1(self.conv1(x)))
        maps = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps


def build_resnet(model: Model) -> ResNet:
    """Return the backbone that the settings name (a key of `DEPTHS`), randomly initialised."""
    block = BasicBlock if model.backbone in BASIC else Bottleneck
    return ResNet(block, DEPTHS[model.backbone], stride_in_1x1=model.stride_in_1x1)
