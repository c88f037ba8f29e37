"""Head outputs become boxes ("Objects as Points", section 4: from points to bounding boxes)."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.ops import Peaks


def gather_cells(head: Tensor, cells: Tensor) -> Tensor:
    """Return the values (B,K,D) of a head map (B,D,H,W) at flat cells (B,K)."""
    index = cells.unsqueeze(1).expand(-1, head.shape[1], -1)
    gathered: Tensor = head.flatten(2).gather(2, index).transpose(1, 2)
    return gathered


def select_class_pair(values: Tensor, labels: Tensor) -> Tensor:
    """Return (B,K,2), the pair of channels that belongs to each label, from (B,K,2*C)."""
    pairs = values.reshape(*values.shape[:-1], -1, 2)
    return pairs.gather(2, labels[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)


def peak_boxes(peaks: Peaks, size: Tensor, offset: Tensor | None) -> Tensor:
    """Return (B,K,4) xyxy boxes in cells, float32, of peaks on maps of this size.

    `size` (B,2,H,W), or (B,2*C,H,W) when it is class-specific; `offset` (B,2,H,W), or None for the cell's middle.
    """
    width = size.shape[3]
    row = peaks.cells // width
    x, y = (peaks.cells - row * width).float(), row.float()
    if offset is None:
        x, y = x + 0.5, y + 0.5
    else:
        shift = gather_cells(offset.float(), peaks.cells)
        x, y = x + shift[..., 0], y + shift[..., 1]
    wh = gather_cells(size.float(), peaks.cells)
    if wh.shape[-1] > 2:
        wh = select_class_pair(wh, peaks.labels)
    half_w, half_h = wh[..., 0] / 2, wh[..., 1] / 2
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)
