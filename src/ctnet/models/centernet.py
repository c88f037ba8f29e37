"""CenterNet (Zhou et al., "Objects as Points", 2019): a heatmap of centres, with size and offset beside it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn

from ctnet.config import Model
from ctnet.models.dla import Dla34
from ctnet.models.dla_neck import DlaNeck
from ctnet.models.heads import Heads
from ctnet.models.hourglass import build_hourglass104
from ctnet.models.lateral_neck import LateralNeck
from ctnet.models.mobilenet import MobileNetV2
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


class StackedCenterNet(nn.Module):
    """A trunk that answers once per stack, with heads of its own for each answer."""

    def __init__(self, backbone: nn.Module, heads: Iterable[Heads]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return what `CenterNet` returns, per stack; the last is the best. Sides are multiples of 128."""
        return [heads(answer) for heads, answer in zip(self.heads, self.backbone(x), strict=True)]


def build_centernet(model: Model, num_classes: int) -> CenterNet | StackedCenterNet:
    """Return the network that a recipe's `model` section describes, randomly initialised."""
    channels = {"heatmap_logits": num_classes, "size": 2 * num_classes if model.class_specific_size else 2}
    if model.predict_offset:
        channels["offset"] = 2
    heads = partial(Heads, hidden=model.head_channels, channels=channels, heatmap_bias=model.heatmap_bias)
    if model.backbone == "hourglass104":
        stacked = build_hourglass104()
        return StackedCenterNet(stacked, [heads(stacked.out_channels) for _ in stacked.stacks])
    backbone, neck = _trunk_and_neck(model)
    return CenterNet(backbone, neck, heads(neck.out_channels))


def _trunk_and_neck(model: Model) -> tuple[nn.Module, UpsamplingNeck | DlaNeck | LateralNeck]:
    if model.backbone == "mobilenetv2":
        return MobileNetV2(), LateralNeck(MobileNetV2.out_channels, model.neck_channels[-1])
    if model.backbone == "dla34":
        return Dla34(), DlaNeck(Dla34.out_channels, deform=model.neck == "deform", deform_bias=model.deform_bias)
    trunk = build_resnet(model.backbone, stride_in_1x1=model.stride_in_1x1)
    if model.neck == "lateral":
        return trunk, LateralNeck(trunk.out_channels, model.neck_channels[-1])
    bottom = trunk.out_channels[-1]
    return trunk, UpsamplingNeck(bottom, model.neck_channels, model.neck, deform_bias=model.deform_bias)
