"""CenterNet2 (Zhou et al., "Probabilistic two-stage detection", 2021): backbone, pyramid, dense head, second stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ctnet.config import CenterNet2Model
from ctnet.models.centernet import build_backbone
from ctnet.models.dense_head import DenseHead
from ctnet.models.pyramid import BiFpn, Fpn
from ctnet.models.roi_heads import RoiStage
from ctnet.nn import freeze_norms

Dense = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""heatmap logits, distances to the sides of boxes, and features, of each level"""


class FirstStage(nn.Module):
    """Everything that sees whole images."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, x: Tensor) -> Dense:
        """Return what `Dense` is of a normalised batch (N,3,H,W)."""
        levels = self.neck(self.backbone(x)[1:])
        heatmaps, boxes = self.head(levels)
        return heatmaps, boxes, levels


class CenterNet2(nn.Module):
    """The network. `roi` are the second stages, which `forward` leaves to its caller: they need boxes."""

    def __init__(self, first: FirstStage, roi: nn.ModuleList, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone, self.neck, self.head = first.backbone, first.neck, first.head
        self.roi = roi

    def first(self, x: Tensor) -> Dense:
        """Return the outputs of the first stage for a normalised batch (N,3,H,W)."""
        outputs: Dense = FirstStage.forward(self, x)  # type: ignore[arg-type]
        return outputs

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return the raw maps of the first stage by name, alone in a list."""
        return [named(self.first(x))]


class PreparedCenterNet2(nn.Module):
    """A network whose parts a device has prepared, each as one graph."""

    def __init__(self, network: CenterNet2, prepare: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.first = prepare(FirstStage(network.backbone, network.neck, network.head))
        self.roi = nn.ModuleList(prepare(stage) for stage in network.roi)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return what `CenterNet2.forward` returns."""
        return [named(self.first(x))]


def named(outputs: Dense) -> dict[str, Tensor]:
    """Return the maps by name: `heatmap_p3`, ..., `box_p3`, ..."""
    heatmaps, boxes, _ = outputs
    names = [f"p{level}" for level in range(3, 3 + len(boxes))]
    return {
        f"{what}_{name}": values
        for what, maps in (("heatmap", heatmaps), ("box", boxes))
        for name, values in zip(names, maps, strict=True)
    }


def build_centernet2(model: CenterNet2Model, num_classes: int) -> CenterNet2:
    """Return the network, randomly initialised, its frozen parts frozen."""
    backbone = build_backbone(model)
    neck: Any
    if model.neck == "bifpn":
        neck = BiFpn(backbone.specs[1:], model.neck_channels, model.neck_repeats)
    else:
        neck = Fpn(backbone.specs[1:], model.neck_channels, model.levels)
    if model.frozen_norms:
        freeze_norms(backbone)
    _freeze(backbone, model.frozen_stages)
    stages = (
        RoiStage(model.neck_channels, model.roi_size, model.roi_channels, num_classes)
        for _ in range(model.roi_stages)
    )  # fmt: skip
    head = DenseHead(model, neck.specs, num_classes)
    return CenterNet2(FirstStage(backbone, neck, head), nn.ModuleList(stages), num_classes)


def _freeze(backbone: nn.Module, stages: int) -> None:
    """Freeze the first parts of a ResNet: convolution and norm of the stem, then its stages."""
    names = [("conv1", "bn1"), *((f"layer{stage}",) for stage in range(1, 5))]
    for part in (name for group in names[:stages] for name in group):
        holder = nn.ModuleDict({part: backbone.get_submodule(part)})  # so that a norm can be replaced
        freeze_norms(holder)
        setattr(backbone, part, holder[part].requires_grad_(False))
