"""Settings of the family `centerface`: a CenterNet of logarithmic sizes and landmarks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from ctnet.config.families.backbones import known_backbone
from ctnet.config.families.centernet import CenterNetLoss, CenterNetModel
from ctnet.config.ranges import NonNegative


class CenterFaceModel(CenterNetModel):
    """The network. Numbers are CenterFace's (Xu et al., 2019) unless a recipe sets others."""

    family_heads: ClassVar[tuple[str, ...]] = ("heatmap", "log_size", "offset", "landmarks")

    family: Literal["centerface"] = "centerface"  # type: ignore[assignment]
    """kind of detector; it determines the other settings of `model` and `loss`"""
    backbone: Annotated[str, AfterValidator(known_backbone)] = "mobilenetv2"
    """as in the family centernet"""
    head_channels: Annotated[int, Field(ge=0, le=1024)] = 0
    """channels between the two convolutions of each head; 0 makes a head one 1x1 convolution"""
    landmark_origin: Literal["cell", "center"] = "cell"
    """where landmarks are measured from when they are decoded: the centre's cell, as they are taught, or the centre
    itself, as the original does, whose landmarks are off by up to a cell"""


class CenterFaceLoss(CenterNetLoss):
    """Parts of the loss and their weights."""

    landmarks: NonNegative = 0.1
    """L1 of landmarks in cells"""
    box_landmarks: NonNegative = 1.0
    """L1 of landmarks in sides of the box"""
    regression: Literal["l1", "smooth_l1"] = "smooth_l1"
    """form of the size and offset losses"""
    targets: Literal["centernet", "mmdet", "centerface"] = "centerface"
    """whose rules turn boxes into targets and losses, as in the family centernet"""
