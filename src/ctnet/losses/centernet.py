"""The whole CenterNet loss: heatmap, size, offset and perhaps boxes, averaged over stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ctnet.losses.focal import count_centers, heatmap_focal_loss
from ctnet.losses.regression import GUARD, box_giou_loss, cell_regression_loss, dense_size_loss, footprint_weight
from ctnet.types import TargetRules


class CenterBatch(NamedTuple):
    """Targets of a batch: those of `codec.encode`, stacked and padded to N objects."""

    heatmap: Tensor  # (B,C,H,W)
    size: Tensor  # (B,N,2) cells
    offset: Tensor  # (B,N,2) cells
    cell: Tensor  # (B,N) int64
    label: Tensor  # (B,N) int64
    valid: Tensor  # (B,N) bool
    dense_size: Tensor | None = None  # (B,2,H,W) cells


class Counts(NamedTuple):
    """What the parts of the loss are divided by, scalars.

    Counts of the parts of a batch add up to those of the whole.
    """

    centers: Tensor  # cells of the heatmap that are exactly 1
    objects: Tensor  # objects that are compared
    footprint: Tensor  # weight of the cells whose size is supervised, 0 without dense sizes


def count(target: CenterBatch) -> Counts:
    """Return the counts of a batch, on its device."""
    centers = count_centers(target.heatmap).float()
    footprint = centers.new_zeros(()) if target.dense_size is None else footprint_weight(target.heatmap).sum()
    return Counts(centers, target.valid.sum().float(), footprint)


def centernet_loss(
    stacks: Sequence[Mapping[str, Tensor]],
    target: CenterBatch,
    *,
    heatmap_weight: float = 1.0,
    size_weight: float = 0.1,
    offset_weight: float = 1.0,
    giou_weight: float = 0.0,
    regression: Literal["l1", "smooth_l1"] = "l1",
    rules: TargetRules = "centernet",
    counts: Counts | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and its parts (`heatmap`, `size`, `offset`, unweighted), means over the stacks.

    With a `giou_weight` there is a fourth part, `giou`, that of the boxes which size and offset make together.

    Each stack is a dict of raw head outputs: `heatmap_logits` (B,C,H,W), `size` (B,2,H,W) or (B,2*C,H,W), and
    perhaps `offset` (B,2,H,W). Nothing is moved to the host. When the batch is a part of a larger one, `counts` are
    those of the whole, and the losses of the parts add up to its loss.
    """
    counts = counts or count(target)
    at_cells = partial(
        cell_regression_loss,
        cells=target.cell,
        valid=target.valid,
        kind=regression,
        # mmdet divides all parts by the centres of the heatmap, where objects of a class in one cell are one
        objects=counts.centers.clamp(min=1) if rules == "mmdet" else counts.objects,
        guard=0.0 if rules == "mmdet" else GUARD,
    )
    parts = dict.fromkeys(("heatmap", "size", "offset"), target.heatmap.new_zeros(()))
    weights = {"heatmap": heatmap_weight, "size": size_weight, "offset": offset_weight}
    if giou_weight > 0:
        parts["giou"], weights["giou"] = target.heatmap.new_zeros(()), giou_weight
    for heads in stacks:
        labels = target.label if heads["size"].shape[1] > 2 else None
        found = {
            "heatmap": heatmap_focal_loss(heads["heatmap_logits"], target.heatmap, rules=rules, centers=counts.centers)
        }
        if target.dense_size is not None:
            weight = footprint_weight(target.heatmap)
            found["size"] = dense_size_loss(heads["size"], target.dense_size, weight, counts.footprint)
        else:
            found["size"] = at_cells(heads["size"], target=target.size, labels=labels)
        if "offset" in heads:
            found["offset"] = at_cells(heads["offset"], target=target.offset)
        if giou_weight > 0:
            boxes = target.cell, target.size, target.offset, target.valid
            found["giou"] = box_giou_loss(
                heads["size"], heads.get("offset"), *boxes, labels=labels, objects=counts.objects
            )
        parts |= {name: parts[name] + part / len(stacks) for name, part in found.items()}
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum(), parts
