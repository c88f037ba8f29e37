"""Settings of the family `centernet2`: centres on the levels of a pyramid, alone or as proposals of a second stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctnet.config.families.base import Loss, Model
from ctnet.config.ranges import Count, Detected, Fraction, NonNegative

Range = Annotated[tuple[NonNegative, Annotated[float, Field(gt=0, le=1e9)]], Field()]
_RANGES: dict[int, tuple[tuple[float, float], ...]] = {
    3: ((0, 64), (48, 192), (128, 1e6)),
    5: ((0, 80), (64, 160), (128, 320), (256, 640), (512, 1e7)),
}


class CenterNet2Model(Model):
    """The network. Numbers are those of "Probabilistic two-stage detection" unless a recipe sets others."""

    family: Literal["centernet2"] = "centernet2"
    """kind of detector; it determines the other settings of `model` and `loss`"""
    neck: Literal["fpn", "bifpn"] = "fpn"
    """feature pyramid, or bidirectional one with weighted sums (three levels)"""
    neck_channels: Annotated[int, Field(ge=50, le=1024)] = 256
    """channels of every level of the pyramid, a multiple of 32 or 25, the groups of its norms"""
    neck_repeats: Annotated[int, Field(ge=1, le=16)] = 4
    """bifpn: how often its levels are joined"""
    levels: Literal[3, 5] = 5
    """levels of the pyramid: strides 8 to 32, or 8 to 128"""
    frozen_norms: bool = False
    """batch norms of the backbone keep their statistics, scales and shifts (ImageNet weights of detectron2)"""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """leading parts of the backbone that are not trained: the stem, then its stages (detectron2: 2)"""
    head_convs: Annotated[int, Field(ge=1, le=8)] = 4
    """convolutions with group norm before the outputs of each level"""
    head_bias: bool = True
    """these convolutions have a bias (mmdet: none)"""
    heatmap_bias: Annotated[float, Field(ge=-100, le=100)] = -4.595
    """bias that the heatmap starts with: sigmoid(-4.595) = 0.01 in every cell"""
    box_bias: Annotated[float, Field(ge=-100, le=100)] = 8.0
    """bias that the distances to the sides of the box start with, in strides"""
    roi_stages: Annotated[int, Field(ge=0, le=3)] = 3
    """second stages, each refining the boxes of the one before; 0: one stage, whose heatmap has a channel per class"""
    roi_channels: Annotated[int, Field(ge=1, le=4096)] = 1024
    """width of the two hidden layers of a second stage"""
    roi_size: Annotated[int, Field(ge=1, le=28)] = 7
    """cells that each side of a proposal is pooled to"""
    score_floor: Fraction = 1e-4
    """cells with a lower probability are no candidates"""
    candidates: Detected = 1000
    """candidates of each level before NMS, at most"""
    proposal_nms: Fraction = 0.9
    """IoU above which the weaker of two candidates goes: of a class with one stage, of any with two"""
    proposals: Detected = 256
    """proposals of an image that second stages see in inference"""
    nms: Fraction = 0.7
    """IoU above which the weaker of two detections of a class goes, after the second stages"""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels from cell to cell of each level."""
        return tuple(8 << level for level in range(self.levels))

    @property
    def foreign(self) -> Mapping[str, str]:
        """For each project that has such detectors, `module:function` below `ctnet.weights`: names of tensors there."""
        projects = {"detectron2": "centernet2_names:detectron2_pairs"}
        return projects | ({} if self.roi_stages else {"mmdet": "centernet2_names:mmdet_pairs"})

    @property
    def size_multiple(self) -> int:
        """Number of pixels that both sides of an input are multiples of; bifpn's is that of its original."""
        return 128 if self.neck == "bifpn" else max(32, self.row.size_multiple)

    @model_validator(mode="after")
    def _settings_apply(self) -> CenterNet2Model:
        strides = [spec.stride for spec in self.row.specs]
        if strides != [4, 8, 16, 32]:
            raise ValueError(f"a pyramid needs maps at strides 4, 8, 16 and 32, and {self.backbone} has others")
        if self.stride_in_1x1 and "stride_in_1x1" not in self.row.settings:
            raise ValueError(f"model.stride_in_1x1 does not apply to {self.backbone}: leave it out")
        if self.frozen_stages and not self.backbone.startswith("resnet"):
            raise ValueError("model.frozen_stages applies to ResNets")
        if self.neck == "bifpn" and self.levels != 3:
            raise ValueError("model.neck=bifpn needs model.levels=3")
        if self.neck_channels % 32 and self.neck_channels % 25:
            raise ValueError("model.neck_channels must be a multiple of 32 or of 25")
        return self


class CenterNet2Loss(Loss):
    """Parts of the loss, their weights, and what they are taught with."""

    center: NonNegative = 0.5
    """focal loss of the cells that hold a centre"""
    background: NonNegative = 0.5
    """focal loss of all cells, reduced around centres"""
    box: NonNegative = 1.0
    """1 - generalised IoU of the boxes of cells around centres"""
    roi_class: NonNegative = 1.0
    """cross-entropy of the classes in each second stage"""
    roi_box: NonNegative = 1.0
    """L1 of the corrections of boxes in each second stage"""
    ignore_above: Fraction = 0.85
    """background with a higher probability costs nothing, since it may be an object that nobody annotated; 1: none"""
    more_centers: bool = False
    """cells beside a centre whose boxes fit well hold the object, too"""
    size_ranges: Annotated[tuple[Range, ...], Field(min_length=3, max_length=5)] | None = None
    """half the diagonal of the objects of each level, in pixels, both ends included; ranges may overlap; empty means
    those that are published for so many levels"""
    candidates: Detected = 4000
    """candidates of each level before NMS while training, at most"""
    proposals: Detected = 2000
    """proposals of an image, at most, from which those that are trained on are drawn"""
    rois: Count = 512
    """boxes of an image that second stages are trained on"""
    roi_positives: Fraction = 0.25
    """part of them that may be objects"""
    roi_ious: Annotated[tuple[Fraction, ...], Field(max_length=3)] = (0.6, 0.7, 0.8)
    """IoU with an object from which a box is one, for each second stage"""

    def ranges(self, levels: int) -> tuple[tuple[float, float], ...]:
        """Return the range of each level."""
        return _RANGES[levels] if self.size_ranges is None else self.size_ranges

    def check(self, model: Model) -> None:
        """Raise ValueError for settings that do not suit the network."""
        assert isinstance(model, CenterNet2Model)
        ranges = self.ranges(model.levels)
        if len(ranges) != model.levels:
            raise ValueError(f"loss.size_ranges needs {model.levels} ranges, one a level")
        if any(low >= high for low, high in ranges):
            raise ValueError("loss.size_ranges must be pairs, low < high")
        if len(self.roi_ious) < model.roi_stages:
            raise ValueError(f"loss.roi_ious needs {model.roi_stages} numbers, one a second stage")
        if self.more_centers and model.roi_stages:
            raise ValueError("loss.more_centers needs model.roi_stages=0")
