"""The up path of CenterNet's DLA-34 ("Objects as Points", section 5).

Every map is brought to its finer neighbour, again and again, until stride 4: by deformable convolutions, or by
ordinary ones (DLA's own up path, Yu et al., 2018, upstream's dlav0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ctnet.models.blocks import conv_unit
from ctnet.nn import BatchNorm2d, DeformConv2d, DepthwiseUpsample
from ctnet.types import FeatureSpec


class DeformUnit(nn.Module):
    """Deformable convolution, norm with ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = DeformConv2d(in_channels, out_channels, bias=bias)
        self.norm = BatchNorm2d(out_channels, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,out_channels,H,W)."""
        activated: Tensor = self.norm(self.conv(x))
        return activated


class IterativeUp(nn.Module):
    """Brings maps 1.. to the first one's resolution, one after the other, each joined with the one before it.

    `channels` are those of the maps given, finest first, `factors` how much coarser each is than the first.
    Deformable units join by adding, ordinary ones by concatenation, of finer and coarser.
    """

    def __init__(
        self, out_channels: int, channels: Sequence[int], factors: Sequence[int], *, deform: bool, deform_bias: bool
    ) -> None:
        super().__init__()
        self.deform = deform

        def proj(width: int) -> nn.Module:
            return DeformUnit(width, out_channels, bias=deform_bias) if deform else conv_unit(width, out_channels, 1)

        def node() -> nn.Module:
            if deform:
                return DeformUnit(out_channels, out_channels, bias=deform_bias)
            return conv_unit(2 * out_channels, out_channels, 3)

        self.proj = nn.ModuleList(proj(width) for width in channels[1:])
        self.up = nn.ModuleList(DepthwiseUpsample(out_channels, factor) for factor in factors[1:])
        self.node = nn.ModuleList(node() for _ in channels[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return as many maps, all but the first enlarged and joined with the one before."""
        joined = [maps[0]]
        for coarse, proj, up, node in zip(maps[1:], self.proj, self.up, self.node, strict=True):
            enlarged = up(proj(coarse))
            joined.append(node(enlarged + joined[-1] if self.deform else torch.cat([joined[-1], enlarged], 1)))
        return joined


class DlaNeck(nn.Module):
    """All of the up path: three rounds that each start one level finer.

    The deformable one ends with a round over the results of the others.
    """

    def __init__(self, specs: Sequence[FeatureSpec], *, deform: bool = True, deform_bias: bool = True) -> None:
        super().__init__()
        channels = [spec.channels for spec in specs]
        unit = partial(IterativeUp, deform=deform, deform_bias=deform_bias)
        widths, rounds = list(channels), []
        for finest in range(len(channels) - 2, -1, -1):
            out = channels[finest]
            rounds.append(unit(out, widths[finest:], [1] + [2] * (len(channels) - finest - 1)))
            widths[finest + 1 :] = [out] * (len(channels) - finest - 1)
        self.rounds = nn.ModuleList(rounds)
        self.last = unit(channels[0], channels[:3], (1, 2, 4)) if deform else None
        self.specs = specs[:1]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the joined map at the finest stride from maps finest first."""
        layers = list(maps)
        results = [layers[-1]]
        for i, iterative in enumerate(self.rounds):
            start = len(layers) - 2 - i
            layers[start:] = iterative(layers[start:])
            results.insert(0, layers[-1])
        return results[0] if self.last is None else self.last(results[:3])[-1]  # type: ignore[no-any-return]
