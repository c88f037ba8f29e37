"""CenterNet (Zhou et al., "Objects as Points", 2019): a heatmap of centres, with size and offset beside it."""

from __future__ import annotations

from torch import Tensor, nn

from ctnet.config import Model
from ctnet.models.dla import Dla34
from ctnet.models.dla_neck import DlaNeck
from ctnet.models.heads import Heads
from ctnet.models.resnet import build_resnet
from ctnet.models.upsampling import UpsamplingNeck

STRIDE = 4


class CenterNet(nn.Module):
    """Trunk, neck and heads in a row."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.heads = heads

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw head outputs of a normalised batch (N,3,H,W), sides multiples of 32, at stride 4.

        `heatmap_logits` (N,C,H/4,W/4), `size` (N,2 or 2*C,H/4,W/4) in cells, `offset` (N,2,H/4,W/4) in cells unless
        the recipe leaves it out.
        """
        outputs: dict[str, Tensor] = self.heads(self.neck(self.backbone(x)))
        return outputs


def build_centernet(model: Model, num_classes: int) -> CenterNet:
    """Return the network that a recipe's `model` section describes, randomly initialised."""
    backbone, neck = _trunk_and_neck(model)
    channels = {"heatmap_logits": num_classes, "size": 2 * num_classes if model.class_specific_size else 2}
    if model.predict_offset:
        channels["offset"] = 2
    return CenterNet(backbone, neck, Heads(neck.out_channels, model.head_channels, channels))


def _trunk_and_neck(model: Model) -> tuple[nn.Module, UpsamplingNeck | DlaNeck]:
    if model.backbone == "dla34":
        return Dla34(), DlaNeck(Dla34.out_channels)
    trunk = build_resnet(model.backbone)
    return trunk, UpsamplingNeck(trunk.out_channels, model.neck_channels, deform=model.neck == "deform")
