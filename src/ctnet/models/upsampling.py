"""Necks that bring a stride-32 map to stride 4 with three transposed convolutions ("Objects as Points", section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.nn import DeformConv2d


class UpsamplingStage(nn.Module):
    """Twice the resolution: optionally a deformable convolution, then a transposed one, each with norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, *, deform: bool) -> None:
        super().__init__()
        self.deform = DeformConv2d(in_channels, channels) if deform else None
        self.deform_norm = nn.BatchNorm2d(channels) if deform else None
        self.up = nn.ConvTranspose2d(channels if deform else in_channels, channels, 4, 2, 1, bias=False)
        self.up_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N,channels,2*H,2*W)."""
        if self.deform is not None and self.deform_norm is not None:
            x = F.relu(self.deform_norm(self.deform(x)), inplace=True)
        return F.relu(self.up_norm(self.up(x)), inplace=True)


class UpsamplingNeck(nn.Sequential):
    """Stages in a row; `out_channels` is the width of the last."""

    def __init__(self, in_channels: int, channels: Sequence[int], *, deform: bool) -> None:
        widths = [in_channels, *channels]
        super().__init__(*(UpsamplingStage(a, b, deform=deform) for a, b in zip(widths, channels, strict=False)))
        self.out_channels = channels[-1]
