"""Settings of the family `pose`: a CenterNet of boxes with key points."""

from __future__ import annotations

from typing import ClassVar, Literal

from ctnet.config.families.centernet import CenterNetLoss, CenterNetModel
from ctnet.config.ranges import NonNegative


class PoseModel(CenterNetModel):
    """The network. Numbers are those of "Objects as Points", section 4.2, unless a recipe sets others."""

    family_heads: ClassVar[tuple[str, ...]] = (
        "heatmap", "size", "offset", "keypoints", "keypoint_heatmap", "keypoint_offset"
    )  # fmt: skip

    family: Literal["pose"] = "pose"  # type: ignore[assignment]
    """kind of detector; it determines the other settings of `model` and `loss`"""


class PoseLoss(CenterNetLoss):
    """Parts of the loss and their weights."""

    keypoints: NonNegative = 1.0
    """L1 of key points in cells, measured from the cell of the object's centre"""
    keypoint_heatmap: NonNegative = 1.0
    """penalty-reduced focal loss of the key points' own heatmaps"""
    keypoint_offset: NonNegative = 1.0
    """L1 of key points within their cells"""
    keypoint_targets: Literal["center", "dense"] = "center"
    """supervise key points at the centre cell, or over the whole gaussian, weighted by it (upstream's dense_hp)"""
    boxes_without_points: bool = True
    """size and offset are also learnt from objects without a labelled key point; the original leaves them out"""
