"""The whole CenterNet loss: heatmap, size and offset, averaged over stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from ctnet.losses.focal import count_centers, heatmap_focal_loss
from ctnet.losses.regression import GUARD, cell_regression_loss, dense_size_loss, footprint_weight
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
    regression: Literal["l1", "smooth_l1"] = "l1",
    rules: TargetRules = "centernet",
    counts: Counts | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and its parts (`heatmap`, `size`, `offset`, unweighted), means over the stacks.

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
    heatmap = size = offset = target.heatmap.new_zeros(())
    for heads in stacks:
        focal = heatmap_focal_loss(heads["heatmap_logits"], target.heatmap, rules=rules, centers=counts.centers)
        heatmap = heatmap + focal / len(stacks)
        if target.dense_size is not None:
            weight = footprint_weight(target.heatmap)
            size = size + dense_size_loss(heads["size"], target.dense_size, weight, counts.footprint) / len(stacks)
        else:
            labels = target.label if heads["size"].shape[1] > 2 else None
            size = size + at_cells(heads["size"], target=target.size, labels=labels) / len(stacks)
        if "offset" in heads:
            offset = offset + at_cells(heads["offset"], target=target.offset) / len(stacks)
    total = heatmap_weight * heatmap + size_weight * size + offset_weight * offset
    return total, {"heatmap": heatmap, "size": size, "offset": offset}
