"""Boxes in torch: corrections, clipping, overlap, and the level of a pyramid that a box is pooled from.

Boxes are (...,4) xyxy pixels, and nothing adds 1 to a side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LARGEST_STEP = math.log(1000 / 16)  # a correction makes no side longer than 62.5 times
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 4  # Lin et al., "Feature Pyramid Networks", 2017, eq. 1


def correction_weights(stage: int) -> tuple[float, float]:
    """Return what corrections of centres and of logarithms of sides are multiplied by in a cascade's stage, from 0.

    Boxes of later stages are nearer, so their corrections are smaller (Cai and Vasconcelos, 2018).
    """
    return 10.0 * (stage + 1), 5.0 * (stage + 1)


def encode_corrections(source: Tensor, target: Tensor, weights: tuple[float, float]) -> Tensor:
    """Return (...,4) what turns source boxes into target boxes; both have areas."""
    (center, size), (wanted_center, wanted_size) = _center_size(source), _center_size(target)
    at, by = weights
    return torch.cat([at * (wanted_center - center) / size, by * (wanted_size / size).log()], -1)


def correct_boxes(boxes: Tensor, corrections: Tensor, weights: tuple[float, float]) -> Tensor:
    """Return the boxes corrected by what `encode_corrections` returns; sides grow at most 62.5 times."""
    center, size = _center_size(boxes)
    at, by = weights
    center = corrections[..., :2] / at * size + center
    half = 0.5 * (corrections[..., 2:] / by).clamp(max=_LARGEST_STEP).exp() * size
    return torch.cat([center - half, center + half], -1)


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def clip_boxes(boxes: Tensor, image_hw: Tensor) -> Tensor:
    """Return boxes (B,K,4) within images of these heights and widths (B,2)."""
    limit = image_hw.flip(1).repeat(1, 2).unsqueeze(1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit)


def have_area(boxes: Tensor) -> Tensor:
    """Return (...,) whether both sides are longer than 0."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU (B,N,K) of boxes (B,N,4) with boxes (B,K,4), 0 where they do not overlap."""
    low = torch.maximum(one[:, :, None, :2], other[:, None, :, :2])
    high = torch.minimum(one[:, :, None, 2:], other[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area, other_area = ((boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (one, other))
    union = area[:, :, None] + other_area[:, None] - shared
    return torch.where(shared > 0, shared / union, 0)


def pooling_level(boxes: Tensor, levels: int) -> Tensor:
    """Return (...,) int64, the index from 0 of the level of P3 and up that a box is pooled from."""
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    level = torch.floor(_CANONICAL_LEVEL + torch.log2(area.sqrt() / _CANONICAL_SIDE + 1e-8))
    return level.clamp(3, 2 + levels).long() - 3
