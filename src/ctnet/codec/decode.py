"""Head outputs become boxes and key points ("Objects as Points", section 4 and 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ctnet.ops import Peaks

# What a peak must be to replace a regressed key point, as in the original: above this probability, within the box, and
# no further away than this part of the box's longer side.
LEAST_PROBABILITY = 0.1
REACH = 0.3


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


def point_peaks(
    logits: Tensor, offset: Tensor | None, top_k: int, peaks: Callable[[Tensor, int], Peaks]
) -> tuple[Tensor, Tensor]:
    """Return the `top_k` strongest peaks of each key point in cells, (B,P,K,2), and their probabilities (B,P,K).

    `logits` are (B,P,H,W). `offset` (B,2,H,W) says where in its cell a peak is; without it, in the middle.
    """
    shape = (-1, logits.shape[1], top_k)
    found = peaks(logits.flatten(0, 1).unsqueeze(1), top_k)
    cells = found.cells.reshape(shape)
    within = 0.5 if offset is None else gather_cells(offset.float(), cells.flatten(1)).reshape(*shape, 2)
    return cell_positions(cells, logits.shape[3]) + within, found.scores.reshape(shape)


def move_to_peaks(points: Tensor, boxes: Tensor, places: Tensor, probabilities: Tensor) -> Tensor:
    """Return the key points (B,K,P,2) of K boxes (B,K,4), each at the nearest peak of its kind if that suits the box.

    Peaks are at `places` (B,P,C,2); each may serve several boxes. All are in cells.
    """
    usable = (probabilities > LEAST_PROBABILITY).unsqueeze(-1)
    places = torch.where(usable, places, -10000.0)
    regressed = points.transpose(1, 2)
    dx = regressed[..., :1] - places[..., 0].unsqueeze(2)
    dy = regressed[..., 1:] - places[..., 1].unsqueeze(2)
    squared, nearest = (dx * dx + dy * dy).min(-1)
    nearest = nearest.unsqueeze(-1)
    place = places.gather(2, nearest.expand(-1, -1, -1, 2))
    x, y = place[..., 0], place[..., 1]
    left, top, right, bottom = (side.unsqueeze(1) for side in boxes.unbind(-1))
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    near = squared.sqrt() <= REACH * torch.maximum(right - left, bottom - top)
    suits = (inside & near).unsqueeze(-1) & usable.gather(2, nearest)
    return torch.where(suits, place, regressed).transpose(1, 2)
