"""Losses: functions from prediction and target to a scalar."""

from ctnet.losses.focal import count_centers, heatmap_focal_loss, heatmap_squared_loss, unclamped_focal_loss
from ctnet.losses.pyramid import center_focal, side_giou_loss
from ctnet.losses.regression import GUARD, box_giou_loss, cell_regression_loss, dense_size_loss, footprint_weight

__all__ = [
    "GUARD",
    "box_giou_loss",
    "cell_regression_loss",
    "center_focal",
    "count_centers",
    "dense_size_loss",
    "footprint_weight",
    "heatmap_focal_loss",
    "heatmap_squared_loss",
    "side_giou_loss",
    "unclamped_focal_loss",
]
