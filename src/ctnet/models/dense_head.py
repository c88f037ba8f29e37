"""The head of CenterNet2's first stage (Zhou et al., "Probabilistic two-stage detection", 2021), one for all levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ctnet.config import CenterNet2Model
from ctnet.models.pyramid import group_norm
from ctnet.nn import LevelConv2d
from ctnet.types import FeatureSpec


class DenseHead(nn.Module):
    """Heatmap logits and the distances to the sides of a box in every cell.

    As proposals, with one heatmap, both come out of the same convolutions; with a heatmap per class it has its own.
    """

    def __init__(self, model: CenterNet2Model, specs: Sequence[FeatureSpec], num_classes: int) -> None:
        super().__init__()
        channels = specs[0].channels
        one_stage = model.roi_stages == 0
        self.box_tower = _tower(channels, model.head_convs, bias=model.head_bias)
        self.class_tower = _tower(channels, model.head_convs, bias=model.head_bias) if one_stage else None
        self.heatmap = nn.Conv2d(channels, num_classes if one_stage else 1, 3, padding=1)
        self.box = LevelConv2d(channels, 4, len(specs))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.heatmap.bias is not None
        assert self.box.bias is not None
        nn.init.constant_(self.heatmap.bias, model.heatmap_bias)
        nn.init.constant_(self.box.bias, model.box_bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each level logits (N,1 or C,h,w), and left, top, right, bottom (N,4,h,w) in strides."""
        heatmaps, boxes = [], []
        for i, level in enumerate(levels):
            x = self.box_tower(level)
            boxes.append(self.box(x, i))
            heatmaps.append(self.heatmap(x if self.class_tower is None else self.class_tower(level)))
        return heatmaps, boxes


def _tower(channels: int, depth: int, *, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=bias), group_norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
