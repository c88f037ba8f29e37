"""Head outputs become boxes ("Objects as Points", section 4: from points to bounding boxes)."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_cells(head: Tensor, cells: Tensor) -> Tensor:
    """Return the values (B,K,D) of a head map (B,D,H,W) at flat cells (B,K)."""
    index = cells.unsqueeze(1).expand(-1, head.shape[1], -1)
    gathered: Tensor = head.flatten(2).gather(2, index).transpose(1, 2)
    return gathered


def select_class(values: Tensor, labels: Tensor, channels: int = 2) -> Tensor:
    """Return (B,K,D), the D channels that belong to each label, from (B,K,D*C)."""
    by_class = values.reshape(*values.shape[:-1], -1, channels)
    return by_class.gather(2, labels[..., None, None].expand(-1, -1, 1, channels)).squeeze(2)


def cell_positions(cells: Tensor, width: int) -> Tensor:
    """Return (...,2) column and row, float32, of flat cells (...) on maps of this width."""
    row = cells // width
    return torch.stack([(cells - row * width).float(), row.float()], -1)


def center_boxes(center: Tensor, size: Tensor) -> Tensor:
    """Return (...,4) xyxy boxes of centres (...,2) and sizes (...,2) width and height."""
    half = size / 2
    return torch.cat([center - half, center + half], -1)
