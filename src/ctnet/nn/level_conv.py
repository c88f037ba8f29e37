"""The output convolution of boxes, one for all levels of a pyramid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LevelConv2d(nn.Conv2d):
    """A 3x3 convolution whose output is multiplied by a learned factor of its level and is at least 0."""

    def __init__(self, in_channels: int, out_channels: int, levels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in range(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:  # type: ignore[override]
        """Return (N,out_channels,H,W) of the map of a level."""
        return F.relu(super().forward(x) * self.scales[level])
