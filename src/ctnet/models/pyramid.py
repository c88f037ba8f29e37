"""Pyramids of one width: FPN (Lin et al., 2017) with two more levels, and BiFPN (Tan et al., "EfficientDet", 2020).

Both take a backbone's maps at strides 8, 16 and 32 and return one map a level, finest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.types import FeatureSpec


class Fpn(nn.Module):
    """Top-down sums of lateral maps; above stride 32 each level is a strided convolution of the one below it."""

    def __init__(self, specs: Sequence[FeatureSpec], channels: int, levels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(spec.channels, channels, 1) for spec in specs)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in specs)
        self.extra = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2) for _ in range(levels - len(specs)))
        self.specs = tuple(FeatureSpec(channels, specs[0].stride << level) for level in range(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initialise_uniformly(module)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels from maps finest first."""
        x = self.lateral[-1](maps[-1])
        levels = [self.output[-1](x)]
        for finer, lateral, output in zip(maps[-2::-1], self.lateral[-2::-1], self.output[-2::-1], strict=True):
            x = lateral(finer) + F.interpolate(x, scale_factor=2.0, mode="nearest")
            levels.insert(0, output(x))
        for i, convolution in enumerate(self.extra):
            x = F.relu(levels[-1]) if i else levels[-1]
            # padded here, since oneDNN's gradient of a strided bf16 convolution over a single cell is not filled in
            levels.append(convolution(F.pad(x, (1, 1, 1, 1))))
        return levels


# Each node: the level it is at, and the maps it joins, numbered: the levels given, then the nodes before it.
NODES = ((1, (1, 2)), (0, (0, 3)), (1, (1, 3, 4)), (2, (2, 5)))
_OUTPUTS = (4, 5, 6)


class _Node(nn.Module):
    """A weighted sum of maps, swish, and a convolution with group norm."""

    def __init__(self, channels: int, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = group_norm(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the joined map of maps of one size."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + 1e-4)
        joined = maps[0] * weights[0]
        for i in range(1, len(maps)):
            joined = joined + maps[i] * weights[i]
        output: Tensor = self.norm(self.conv(F.silu(joined)))
        return output


class BiFpnRound(nn.Module):
    """One way up and one down over three levels; maps of another width are narrowed for each level that reads them."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(_Node(channels, len(sources)) for _, sources in NODES)
        self.narrow = nn.ModuleDict()
        for level, sources in NODES:
            for source in sources:
                key = f"{source}_{level}"
                if source < len(widths) and widths[source] != channels and key not in self.narrow:
                    self.narrow[key] = nn.Sequential(nn.Conv2d(widths[source], channels, 1), group_norm(channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the three levels from maps finest first."""
        known, level_of = list(maps), [0, 1, 2]
        for node, (level, sources) in zip(self.nodes, NODES, strict=True):
            joined = []
            for source in sources:
                x, key = known[source], f"{source}_{level}"
                if key in self.narrow:
                    x = self.narrow[key](x)
                if level_of[source] < level:
                    x = F.max_pool2d(x, 3, 2, 1)
                elif level_of[source] > level:
                    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                joined.append(x)
            known.append(node(joined))
            level_of.append(level)
        return [known[i] for i in _OUTPUTS]


class BiFpn(nn.Sequential):
    """Several rounds, the first of which narrows the backbone's maps."""

    def __init__(self, specs: Sequence[FeatureSpec], channels: int, rounds: int) -> None:
        widths = [spec.channels for spec in specs]
        super().__init__(*(BiFpnRound(widths if i == 0 else [channels] * 3, channels) for i in range(rounds)))
        self.specs = tuple(FeatureSpec(channels, spec.stride) for spec in specs)


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm of 32 groups, or of 25 where 32 do not divide the channels."""
    return nn.GroupNorm(25 if channels % 32 else 32, channels)


def initialise_uniformly(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw the weight so that the variance of rectified maps is kept (He et al., 2015), and zero the bias."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
