"""Losses: functions from prediction and target to a scalar."""

from ctnet.losses.centernet import CenterBatch, Counts, centernet_loss, count
from ctnet.losses.focal import heatmap_focal_loss
from ctnet.losses.regression import box_giou_loss, cell_regression_loss, dense_size_loss

__all__ = [
    "CenterBatch",
    "Counts",
    "box_giou_loss",
    "cell_regression_loss",
    "centernet_loss",
    "count",
    "dense_size_loss",
    "heatmap_focal_loss",
]
