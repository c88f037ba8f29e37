"""DLA-34 (Yu et al., "Deep Layer Aggregation", 2018), the backbone of CenterNet's best-known network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctnet.config import Model
from ctnet.models.blocks import ConvPair, conv_norm, conv_unit, initialise
from ctnet.nn import MaxPool2d
from ctnet.types import FeatureSpec

CHANNELS = (16, 32, 64, 128, 256, 512)


class Leaf(nn.Module):
    """A tree of depth one: two blocks, whose outputs the root joins with the maps handed down."""

    def __init__(self, in_channels: int, channels: int, stride: int, handed_down: int) -> None:
        super().__init__()
        self.tree1 = ConvPair(in_channels, channels, stride)
        self.tree2 = ConvPair(channels, channels, 1)
        self.pool = MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.project: nn.Module = nn.Identity()
        if in_channels != channels:
            self.project = conv_norm(in_channels, channels, 1)
        self.root = conv_unit(2 * channels + handed_down, channels, 1)

    def forward(self, x: Tensor, children: list[Tensor]) -> Tensor:
        """Return (N,C,H/stride,W/stride); `children` are maps of that size to join."""
        first = self.tree1(x, self.project(self.pool(x)))
        second = self.tree2(first, first)
        joined: Tensor = self.root(torch.cat([second, first, *children], 1))
        return joined


class Tree(nn.Module):
    """Two leaves in a row; the second one's root also sees the input, pooled, and the first one's output.

    Original checkpoints hold a `project` here too, which is unused.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.tree1 = Leaf(in_channels, channels, 2, 0)
        self.tree2 = Leaf(channels, channels, 1, in_channels + channels)
        self.pool = MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,C,H/2,W/2)."""
        first = self.tree1(x, [])
        joined: Tensor = self.tree2(first, [self.pool(x), first])
        return joined


class SingleTree(Leaf):
    """A leaf that stands alone at a level; a `level_root` joins its pooled input."""

    def __init__(self, in_channels: int, channels: int, *, level_root: bool) -> None:
        super().__init__(in_channels, channels, 2, in_channels if level_root else 0)
        self.level_root = level_root

    def forward(self, x: Tensor, children: list[Tensor] | None = None) -> Tensor:
        """Return (N,C,H/2,W/2)."""
        return super().forward(x, [self.pool(x)] if self.level_root else [])


class Dla34(nn.Module):
    """The backbone; returns the maps at strides 4, 8, 16 and 32 with 64, 128, 256 and 512 channels."""

    specs = tuple(FeatureSpec(channels, 4 << i) for i, channels in enumerate(CHANNELS[2:]))

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = conv_unit(3, 16, 7)
        self.level0 = conv_unit(16, 16, 3)
        self.level1 = conv_unit(16, 32, 3, 2)
        self.level2 = SingleTree(32, 64, level_root=False)
        self.level3 = Tree(64, 128)
        self.level4 = Tree(128, 256)
        self.level5 = SingleTree(256, 512, level_root=True)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four maps of a normalised image batch (N,3,H,W), finest first."""
        x = self.level1(self.level0(self.base_layer(x)))
        maps = []
        for level in (self.level2, self.level3, self.level4, self.level5):
            x = level(x)
            maps.append(x)
        return maps


def build_dla34(_: Model) -> Dla34:
    """Return the backbone, randomly initialised."""
    return Dla34()
