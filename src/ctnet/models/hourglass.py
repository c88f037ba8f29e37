"""Hourglass-104 (Law and Deng, "CornerNet", 2018), the heaviest backbone of "Objects as Points"."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.config import Model
from ctnet.models.blocks import BasicBlock, conv_norm, conv_unit, initialise
from ctnet.types import FeatureSpec

STACKS = 2
# from stride 4 down to stride 128: the width of the maps, and how many blocks are in a row there
WIDTHS = (256, 256, 384, 384, 384, 512)
DEPTHS = (2, 2, 2, 2, 2, 4)


class Level(nn.Module):
    """One level of an hourglass: blocks at its resolution beside the levels below, at half of it, and their sum.

    `widths` and `depths` are those of this level and all below.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        width, below, depth = widths[0], widths[1], depths[0]
        self.beside = _row([width] * (depth + 1))
        self.down = _row([width] + [below] * depth, stride=2)
        self.inner = Level(widths[1:], depths[1:]) if len(widths) > 2 else _row([below] * (depths[1] + 1))
        self.up = _row([below] * depth + [width])

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape of `x`, whose sides halve as often as there are levels below."""
        deep = self.up(self.inner(self.down(x)))
        joined: Tensor = self.beside(x) + F.interpolate(deep, scale_factor=2.0)
        return joined


def _row(widths: Sequence[int], stride: int = 1) -> nn.Sequential:
    """Return one block per step from width to width; the first has the stride."""
    blocks = [BasicBlock(a, b, 1 if i else stride) for i, (a, b) in enumerate(pairwise(widths))]
    return nn.Sequential(*blocks)


class Link(nn.Module):
    """Joins the input and the output of a stack into the input of the next."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_input = conv_norm(channels, channels, 1)
        self.of_output = conv_norm(channels, channels, 1)
        self.block = BasicBlock(channels, channels, 1)

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Return (N,C,H,W) from two maps of that shape."""
        joined: Tensor = self.block(F.relu(self.of_input(x) + self.of_output(output), inplace=True))
        return joined


class Hourglass(nn.Module):
    """The backbone; returns one map per stack, stride 4, as `specs` describe. The last is the best.

    `widths` and `depths` go from stride 4 down, one level each.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], stacks: int) -> None:
        super().__init__()
        width = widths[0]
        self.specs = (FeatureSpec(width, 4),) * stacks
        self.stem = nn.Sequential(conv_unit(3, width // 2, 7, 2), BasicBlock(width // 2, width, 2))
        self.stacks = nn.ModuleList(Level(widths, depths) for _ in range(stacks))
        self.outputs = nn.ModuleList(conv_unit(width, width, 3) for _ in range(stacks))
        self.links = nn.ModuleList(Link(width) for _ in range(stacks - 1))
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return (N,C,H/4,W/4) per stack of a normalised batch (N,3,H,W), sides multiples of the last stride."""
        x = self.stem(x)
        maps = [self.outputs[0](self.stacks[0](x))]
        for link, stack, output in zip(self.links, self.stacks[1:], self.outputs[1:], strict=True):
            x = link(x, maps[-1])
            maps.append(output(stack(x)))
        return maps


def build_hourglass104(_: Model) -> Hourglass:
    """Return the backbone of two stacks with levels down to stride 128, randomly initialised."""
    return Hourglass(WIDTHS, DEPTHS, STACKS)
