"""CenterNet (Zhou et al., "Objects as Points", 2019): backbone, neck, and heads with outputs at object centres."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from ctnet.config import CenterNetModel, Model
from ctnet.models.dla_neck import DlaNeck
from ctnet.models.heads import Heads
from ctnet.models.lateral_neck import LateralNeck
from ctnet.models.upsampling import UpsamplingNeck


class CenterNet(nn.Module):
    """Backbone, neck and heads in sequence."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.heads = heads

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return the raw head outputs (N,D,H/4,W/4) by name, alone in a list, of a normalised batch (N,3,H,W)."""
        return [self.heads(self.neck(self.backbone(x)))]


class StackedCenterNet(nn.Module):
    """A backbone with one output per stack, and heads for each."""

    def __init__(self, backbone: nn.Module, heads: Iterable[Heads]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Return the raw head outputs of each stack; the last is the best."""
        return [heads(answer) for heads, answer in zip(self.heads, self.backbone(x), strict=True)]


def build_centernet(
    model: CenterNetModel, channels: Mapping[str, int], logit_bias: Mapping[str, float]
) -> CenterNet | StackedCenterNet:
    """Return the network with outputs of these channels, randomly initialised; see `Heads` for `logit_bias`."""
    heads = partial(Heads, hidden=model.head_channels, channels=channels, logit_bias=logit_bias)
    backbone = build_backbone(model)
    if not has_neck(model):
        return StackedCenterNet(backbone, [heads(spec.channels) for spec in backbone.specs])
    neck = _neck(model, backbone)
    return CenterNet(backbone, neck, heads(neck.specs[0].channels))


def build_backbone(model: Model) -> Any:
    """Return the backbone that the settings name, randomly initialised."""
    module, _, function = model.row.build.partition(":")
    return getattr(import_module(f"ctnet.models.{module}"), function)(model)


def has_neck(model: CenterNetModel) -> bool:
    """Return whether the backbone's maps are of several strides, which a neck joins; a stack's are of one."""
    return model.row.specs[0].stride != model.row.specs[-1].stride


def _neck(model: CenterNetModel, backbone: Any) -> UpsamplingNeck | DlaNeck | LateralNeck:
    if model.backbone == "dla34":
        return DlaNeck(backbone.specs, deform=model.neck == "deform", deform_bias=model.deform_bias)
    if model.neck == "lateral" or not model.row.necks:
        return LateralNeck(backbone.specs, model.neck_channels[-1], dense=model.dense_up)
    stages = {8: model.neck_channels[:2], 4: model.neck_channels, 2: (*model.neck_channels, model.neck_channels[-1])}
    return UpsamplingNeck(backbone.specs, stages[model.stride], model.neck, deform_bias=model.deform_bias)
