"""Necks that bring a stride-32 map to stride 4 with three transposed convolutions ("Objects as Points", section 5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ctnet.nn import BatchNorm2d, DeformConv2d
from ctnet.nn.upsample import bilinear_kernel
from ctnet.types import FeatureSpec

Kind = Literal["deform", "conv", "plain"]


class UpsamplingNeck(nn.Sequential):
    """Stages that double the resolution, one per entry of `channels`, from the coarsest of the maps.

    A stage is a 3x3 convolution, deformable or ordinary (or, if plain, none), and a transposed one, each with norm and
    ReLU.
    """

    def __init__(
        self, specs: Sequence[FeatureSpec], channels: Sequence[int], kind: Kind = "deform", *, deform_bias: bool = True
    ) -> None:
        widths = zip([specs[-1].channels, *channels], channels, strict=False)
        super().__init__(*(_stage(a, b, kind, deform_bias) for a, b in widths))
        self.specs = (FeatureSpec(channels[-1], specs[-1].stride >> len(channels)),)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the finest map from a backbone's, finest first, of which the coarsest alone is used."""
        x = maps[-1]
        for stage in self:
            x = stage(x)
        return x


def _stage(in_channels: int, channels: int, kind: Kind, deform_bias: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "deform":
        layers[kind] = DeformConv2d(in_channels, channels, bias=deform_bias)
    elif kind == "conv":
        layers[kind] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    if layers:
        layers |= {f"{kind}_norm": BatchNorm2d(channels, relu=True)}
    up = _upsample(channels if layers else in_channels, channels)
    layers |= {"up": up, "up_norm": BatchNorm2d(channels, relu=True)}
    return nn.Sequential(layers)


def _upsample(in_channels: int, channels: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles the resolution, at first bilinear interpolation of mixed channels.

    The mixture is orthogonal (Saxe et al., 2014): nothing of the map is lost before anything is learned.
    """
    up = nn.ConvTranspose2d(in_channels, channels, 4, 2, 1, bias=False)
    mixture = nn.init.orthogonal_(torch.empty(in_channels, channels))
    with torch.no_grad():
        up.weight.copy_(mixture[:, :, None, None] * bilinear_kernel(4))
    return up
