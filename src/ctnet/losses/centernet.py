"""The whole CenterNet loss: heatmap, size and offset, averaged over stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from ctnet.losses.focal import heatmap_focal_loss
from ctnet.losses.regression import cell_regression_loss, dense_size_loss
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


def centernet_loss(
    stacks: Sequence[Mapping[str, Tensor]],
    target: CenterBatch,
    *,
    heatmap_weight: float = 1.0,
    size_weight: float = 0.1,
    offset_weight: float = 1.0,
    regression: Literal["l1", "smooth_l1"] = "l1",
    rules: TargetRules = "centernet",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and its parts (`heatmap`, `size`, `offset`, unweighted), means over the stacks.

    Each stack is a dict of raw head outputs: `heatmap_logits` (B,C,H,W), `size` (B,2,H,W) or (B,2*C,H,W), and
    perhaps `offset` (B,2,H,W). Nothing is moved to the host.
    """
    # mmdet divides all parts by the centres of the heatmap, where objects of a class in one cell are one
    objects = target.heatmap.eq(1).sum().clamp(min=1) if rules == "mmdet" else None
    at_cells = partial(cell_regression_loss, cells=target.cell, valid=target.valid, kind=regression, objects=objects)
    heatmap = size = offset = target.heatmap.new_zeros(())
    for heads in stacks:
        heatmap = heatmap + heatmap_focal_loss(heads["heatmap_logits"], target.heatmap, rules=rules) / len(stacks)
        if target.dense_size is not None:
            highest = target.heatmap.amax(1, keepdim=True)
            size = size + dense_size_loss(heads["size"], target.dense_size, highest) / len(stacks)
        else:
            labels = target.label if heads["size"].shape[1] > 2 else None
            size = size + at_cells(heads["size"], target=target.size, labels=labels) / len(stacks)
        if "offset" in heads:
            offset = offset + at_cells(heads["offset"], target=target.offset) / len(stacks)
    total = heatmap_weight * heatmap + size_weight * size + offset_weight * offset
    return total, {"heatmap": heatmap, "size": size, "offset": offset}
