"""Regression at object centres ("Objects as Points", eq. 2 and 3), of their boxes and over footprints."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.codec.decode import gather_cells, select_class

# Upstream's guard against an empty batch; part of its numbers.
GUARD = 1e-4
# Sides, in cells, that a predicted or an annotated box has at least: without an area there is no IoU.
_SMALLEST_SIDE = 1e-2


def cell_regression_loss(
    head: Tensor,
    cells: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    kind: Literal["l1", "smooth_l1"] = "l1",
    count: Tensor | None = None,
    guard: float = GUARD,
) -> Tensor:
    """Return the scalar loss of a head (B,D,H,W) read at flat cells (B,N), against targets (B,N,D).

    `mask` selects rows (B,N) or numbers (B,N,D). l1 divides by the number of numbers compared (D an
    object), smooth_l1 by the number of objects, both as upstream; `count`, a scalar, replaces the number of objects,
    or that of numbers where the mask is one of numbers. `guard` is added to the divisor. With `labels` (B,N) the head
    holds D channels per class and the object's are compared.
    """
    head = head.float() if head.dtype.itemsize < 4 else head
    predicted = gather_cells(head, cells)
    if labels is not None:
        predicted = select_class(predicted, labels, target.shape[-1])
    by_number = mask.dim() == target.dim()
    mask = (mask if by_number else mask.unsqueeze(-1)).to(predicted.dtype)
    predicted, target = predicted * mask, target * mask
    numbers = 1 if kind == "smooth_l1" or by_number else target.shape[-1]
    if kind == "smooth_l1":
        total = F.smooth_l1_loss(predicted, target, reduction="sum")
    else:
        total = (predicted - target).abs().sum()
    return total / ((mask.sum() if count is None else count) * numbers + guard)


def box_giou_loss(
    size: Tensor,
    offset: Tensor | None,
    cells: Tensor,
    target_size: Tensor,
    target_offset: Tensor,
    valid: Tensor,
    *,
    labels: Tensor | None = None,
    objects: Tensor | None = None,
) -> Tensor:
    """Return the scalar mean of 1 - GIoU (0 to 2) between targets and the boxes of two heads at flat cells (B,N).

    `size` (B,D,H,W) and `offset` (B,2,H,W) are maps, the targets (B,N,2), all in cells; without an offset the box lies
    around the cell's middle. Rows that are not `valid` (B,N) count nothing. With `labels` (B,N) the size head holds a
    pair of channels per class. `objects`, a scalar, replaces the number of valid rows. GIoU: Rezatofighi et al., 2019,
    algorithm 1.
    """
    size = gather_cells(size.float() if size.dtype.itemsize < 4 else size, cells)
    if labels is not None:
        size = select_class(size, labels)
    center = torch.full_like(target_offset, 0.5) if offset is None else gather_cells(offset.to(size.dtype), cells)
    half, target_half = (side.clamp(min=_SMALLEST_SIDE) / 2 for side in (size, target_size))
    low, high = center - half, center + half
    target_low, target_high = target_offset - target_half, target_offset + target_half
    shared = (torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0).prod(-1)
    hull = (torch.maximum(high, target_high) - torch.minimum(low, target_low)).prod(-1)
    union = (high - low).prod(-1) + (target_high - target_low).prod(-1) - shared
    giou = shared / union - (hull - union) / hull
    return ((1 - giou) * valid).sum() / (valid.sum() if objects is None else objects).clamp(min=1)


def footprint_weight(heatmap: Tensor) -> Tensor:
    """Return how much each cell of (B,C,H,W) belongs to an object of any class: (B,2,H,W), for width and height."""
    return heatmap.amax(1, keepdim=True).expand(-1, 2, -1, -1)


def dense_size_loss(
    head: Tensor,
    dense_size: Tensor,
    weight: Tensor,
    footprint: Tensor | None = None,
    *,
    kind: Literal["l1", "smooth_l1"] = "l1",
) -> Tensor:
    """Return the scalar loss of sizes (B,2,H,W) over footprints, averaged by their weight (B,2,H,W) or (B,1,H,W).

    `footprint`, a scalar, replaces the sum of the weights.
    """
    head = head.float() if head.dtype.itemsize < 4 else head
    weight = weight.expand_as(dense_size)
    footprint = weight.sum() if footprint is None else footprint
    found, wanted = head * weight, dense_size * weight
    total = (found - wanted).abs().sum() if kind == "l1" else F.smooth_l1_loss(found, wanted, reduction="sum")
    return total / (footprint + GUARD)
