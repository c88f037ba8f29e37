"""Regression at object centres ("Objects as Points", eq. 2 and 3) and over footprints."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ctnet.codec.decode import gather_cells, select_class_pair

# Upstream's guard against an empty batch; part of its numbers.
GUARD = 1e-4


def cell_regression_loss(
    head: Tensor,
    cells: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    labels: Tensor | None = None,
    kind: Literal["l1", "smooth_l1"] = "l1",
    objects: Tensor | None = None,
    guard: float = GUARD,
) -> Tensor:
    """Return the scalar loss of a head (B,D,H,W) read at flat cells (B,N), against targets (B,N,D).

    Rows that are not `valid` (B,N) count nothing. l1 divides by the number of numbers compared (D an object),
    smooth_l1 by the number of objects, both as upstream; `objects`, a scalar, replaces the latter. `guard` is added to
    the divisor. With `labels` (B,N) the head holds a pair of channels per class and the object's pair is compared.
    """
    head = head.float() if head.dtype.itemsize < 4 else head
    predicted = gather_cells(head, cells)
    if labels is not None:
        predicted = select_class_pair(predicted, labels)
    mask = valid.unsqueeze(-1).to(predicted.dtype)
    predicted, target = predicted * mask, target * mask
    if kind == "smooth_l1":
        total, numbers = F.smooth_l1_loss(predicted, target, reduction="sum"), 1
    else:
        total, numbers = (predicted - target).abs().sum(), target.shape[-1]
    return total / ((mask.sum() if objects is None else objects) * numbers + guard)


def footprint_weight(heatmap: Tensor) -> Tensor:
    """Return how much each cell of (B,C,H,W) belongs to an object of any class: (B,2,H,W), for width and height."""
    return heatmap.amax(1, keepdim=True).expand(-1, 2, -1, -1)


def dense_size_loss(head: Tensor, dense_size: Tensor, weight: Tensor, footprint: Tensor | None = None) -> Tensor:
    """Return the scalar L1 of sizes (B,2,H,W) over footprints, averaged by their weight (B,2,H,W) or (B,1,H,W).

    `footprint`, a scalar, replaces the sum of the weights.
    """
    head = head.float() if head.dtype.itemsize < 4 else head
    weight = weight.expand_as(dense_size)
    footprint = weight.sum() if footprint is None else footprint
    return (head * weight - dense_size * weight).abs().sum() / (footprint + GUARD)
