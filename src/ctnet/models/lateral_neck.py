"""CenterFace's up path (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019).

From the coarsest map each channel is enlarged on its own, and the next finer map is added, narrowed to the same width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ctnet.nn import BatchNorm2d, DepthwiseUpsample
from ctnet.types import FeatureSpec

EPS = 1e-3  # of the norms but the last, as the original has it


def _narrow(in_channels: int, channels: int) -> nn.Sequential:
    """Return 1x1 convolution, norm with ReLU."""
    convolution = nn.Conv2d(in_channels, channels, 1, bias=False)
    return nn.Sequential(convolution, BatchNorm2d(channels, eps=EPS, relu=True))


def _dense_up(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, 2, 2, bias=False)


class LateralStep(nn.Module):
    """Twice the resolution, plus the finer map."""

    def __init__(self, lateral_channels: int, channels: int, *, dense: bool = False) -> None:
        super().__init__()
        up = _dense_up(channels) if dense else DepthwiseUpsample(channels, 2, kernel=2)
        self.up = nn.Sequential(up, BatchNorm2d(channels, eps=EPS, relu=True))
        self.lateral = _narrow(lateral_channels, channels)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Return (N,C,2*H,2*W) from (N,C,H,W) and (N,lateral_channels,2*H,2*W)."""
        joined: Tensor = self.up(x) + self.lateral(finer)
        return joined


class LateralNeck(nn.Module):
    """All of the up path, one width throughout; `specs` are those of the maps, finest first.

    With `dense` a step mixes the channels that it enlarges.
    """

    def __init__(self, specs: Sequence[FeatureSpec], channels: int, *, dense: bool = False) -> None:
        super().__init__()
        self.top = _narrow(specs[-1].channels, channels)
        self.steps = nn.ModuleList(LateralStep(spec.channels, channels, dense=dense) for spec in reversed(specs[:-1]))
        self.last = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            BatchNorm2d(channels, momentum=0.01, relu=True),
        )
        self.specs = (FeatureSpec(channels, specs[0].stride),)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the joined map at the finest stride from maps finest first."""
        x = self.top(maps[-1])
        for step, finer in zip(self.steps, reversed(maps[:-1]), strict=True):
            x = step(x, finer)
        joined: Tensor = self.last(x)
        return joined
