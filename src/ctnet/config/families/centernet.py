"""Settings of the family `centernet`: one stage, outputs at object centres."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ctnet.config.families.backbones import BACKBONES
from ctnet.config.families.base import Loss, Model
from ctnet.config.ranges import MOST_CATEGORIES, Channels, NonNegative


class CenterNetModel(Model):
    """The network. Numbers are those of "Objects as Points" unless a recipe sets others."""

    family_heads: ClassVar[tuple[str, ...]] = ("heatmap", "size", "offset")
    """the heads where `heads` names none"""

    family: Literal["centernet"] = "centernet"
    """kind of detector; it determines the other settings of `model` and `loss`"""
    neck: Literal["deform", "conv", "plain", "lateral"] = "deform"
    """up-sampling: transposed convolutions after deformable ones, after ordinary ones (mmdet), or alone; lateral adds
    the backbone's finer maps (CenterFace's, the only one of mobilenetv2); dla34 takes deform, and plain for ordinary
    convolutions throughout (upstream's dlav0)"""
    neck_channels: tuple[Channels, Channels, Channels] = (256, 128, 64)
    """ResNet: channels after each of the three up-samplings (upstream's plain neck: 256, 256, 256); lateral: the last
    is the width of all"""
    stride: Literal[2, 4, 8] = 4
    """pixels to a cell of the outputs, for ResNets but with the lateral neck: 8 leaves out the last up-sampling, 2
    adds one as wide as the last"""
    deform_bias: bool = True
    """deformable convolutions have a bias (mmdet and MindSpore: none)"""
    dense_up: bool = False
    """lateral: transposed convolutions mix channels, as in CenterFace's ONNX file, where others enlarge each alone"""
    relu6: bool = True
    """mobilenetv2: activations end at 6, as published; CenterFace's ONNX file has none that do"""
    head_channels: Annotated[int, Field(ge=0, le=1024)] = 64
    """channels between the two convolutions of each head; 0 makes a head one 1x1 convolution"""
    heatmap_bias: Annotated[float, Field(ge=-100, le=100)] = -2.19
    """bias that the heatmap head starts with: sigmoid(-2.19) = 0.1 in every cell, so that the many background cells
    do not swamp the first steps"""
    heads: tuple[str, ...] | None = None
    """what is predicted, in this order: heatmap, size or log_size (its logarithm), offset, and key points as keypoints
    (perhaps with keypoint_heatmap and keypoint_offset), landmarks or box_landmarks; empty means those of the family"""
    class_specific_size: bool = False
    """predict one box size per class instead of one for all"""
    predict_offset: bool = True
    """predict the centre within its cell; without it the middle of the cell is used"""

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads in order."""
        own = type(self).family_heads
        return self.heads or tuple(name for name in own if self.predict_offset or name != "offset")

    @model_validator(mode="after")
    def _settings_apply(self) -> CenterNetModel:
        for name in frozenset().union(*(row.settings for row in BACKBONES.values())):
            if getattr(self, name) != type(self).model_fields[name].default and name not in self.row.settings:
                raise ValueError(f"model.{name} does not apply to {self.backbone}: leave it out")
        necks = self.row.necks
        if self.dense_up and necks and self.neck != "lateral":
            raise ValueError("model.dense_up needs model.neck=lateral")
        if necks and self.neck not in necks:
            choices = " and ".join(f"model.neck={neck}" for neck in necks)
            raise ValueError(f"{self.backbone} has {len(necks)} necks: {choices}")
        if self.stride != 4 and self.neck == "lateral":
            raise ValueError("model.stride does not apply to the lateral neck: leave it out")
        if self.heads is not None and not self.predict_offset and "offset" in self.heads:
            raise ValueError("model.heads has an offset, and model.predict_offset=false has none: leave one out")
        return self


class CenterNetLoss(Loss):
    """Parts of the loss and their weights."""

    heatmap: NonNegative = 1.0
    """penalty-reduced focal loss of the centres"""
    size: NonNegative = 0.1
    """L1 of width and height in cells, or of their logarithms"""
    offset: NonNegative = 1.0
    """L1 of the centre within its cell"""
    giou: NonNegative = 0.0
    """1 - generalised IoU of the box at each centre (Rezatofighi et al., 2019): small objects count as much as large
    ones, while an L1 in cells is ruled by the large"""
    heatmap_form: Literal["focal", "mse"] = "focal"
    """form of the heatmap loss: the focal loss of gaussians as large as their objects, or the squared distance of
    probabilities to gaussians of one size, as the original's mse_loss"""
    sigma: Annotated[float, Field(gt=0, le=100)] = 2.0
    """heatmap_form=mse: standard deviation of the gaussians in cells"""
    regression: Literal["l1", "smooth_l1"] = "l1"
    """form of the size and offset losses"""
    targets: Literal["centernet", "mmdet", "centerface"] = "centernet"
    """whose rules turn boxes into targets and losses; mmdet's gaussians are smaller, in a cell the later object wins,
    and every part of the loss is divided by the number of centres in the heatmap; mmdet and centerface do not clamp the
    probabilities in the focal loss"""
    class_weights: (
        Literal["none", "effective"]
        | Annotated[tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(min_length=1, max_length=MOST_CATEGORIES)]
    ) = "none"
    """factors of the heatmap loss, one a class in the order of the categories; effective: (1 - b) / (1 - b^n) for n
    boxes and b = 0.999, scaled to a mean of 1 (Cui et al., "Class-Balanced Loss", 2019), worked out at the begin"""
    size_targets: Literal["center", "dense"] = "center"
    """supervise size at the centre cell, or over the whole gaussian (upstream's dense_wh, whose rounding asks about
    half of those cells for a size of zero: for such weights, not for training from scratch)"""

    @model_validator(mode="after")
    def _agree(self) -> CenterNetLoss:
        if self.targets == "mmdet" and self.size_targets == "dense":
            raise ValueError("loss.targets=mmdet needs loss.size_targets=center")
        if self.targets == "mmdet" and self.heatmap_form == "mse":
            raise ValueError("loss.targets=mmdet needs loss.heatmap_form=focal")
        return self

    def check(self, model: Model) -> None:
        """Raise ValueError for parts without an output of the network."""
        if isinstance(model, CenterNetModel) and self.size_targets == "dense":
            if model.class_specific_size:
                raise ValueError("loss.size_targets=dense needs model.class_specific_size=false")
            if "size" not in model.head_names:
                raise ValueError("loss.size_targets=dense needs the head size")
