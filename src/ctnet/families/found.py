"""Boxes of a batch on their way to detections: candidates of a pyramid's levels, NMS, and the strongest that remain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctnet.codec.decode import cell_positions, gather_cells
from ctnet.families.family import Keep
from ctnet.ops import batched_nms

_SMALLEST_SIDE = 0.01  # pixels of a candidate, so that it can be pooled from
TIES = 64
"""boxes kept beyond a limit because they are as strong as the last one within, at most"""
_FIRST_LOOK = 4096  # detections of an image that NMS looks at before it is known that this was too few


class Found(NamedTuple):
    """Boxes (B,K,4) xyxy in input pixels, scores (B,K) and labels (B,K); those that are missing have the score 0."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> Found:
        """Return the boxes of indices (B,J)."""
        boxes = self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))
        return Found(boxes, self.scores.gather(1, index), self.labels.gather(1, index))


class Limits(NamedTuple):
    """Candidates are above `floor` in probability, and `candidates` of a level at most; after NMS `most` remain."""

    floor: float
    candidates: int
    nms: float
    most: int


def level_candidates(
    heatmaps: Sequence[Tensor], sides: Sequence[Tensor], strides: Sequence[int], limits: Limits
) -> Found:
    """Return the strongest cells of each level as boxes, not clipped; scores are probabilities.

    `heatmaps` are logits (B,C,h,w), `sides` left, top, right and bottom (B,4,h,w) in strides.
    """
    parts = []
    for logits, side, stride in zip(heatmaps, sides, strides, strict=True):
        cells, width = logits.shape[2] * logits.shape[3], logits.shape[3]
        probability = logits.float().sigmoid().flatten(1)
        scores, index = probability.topk(min(limits.candidates, probability.shape[1]))
        labels = index // cells
        cell = index - labels * cells
        position = cell_positions(cell, width) * stride + stride // 2
        reach = gather_cells(side.float(), cell) * stride
        low, high = position - reach[..., :2], position + reach[..., 2:]
        boxes = torch.cat([low, torch.maximum(high, low + _SMALLEST_SIDE)], -1)
        parts.append(Found(boxes, torch.where(scores > limits.floor, scores, 0), labels))
    return Found(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))


def suppress(found: Found, threshold: float, limit: int | None = None, *, static: bool = False) -> Found:
    """Return the boxes with the scores of those that greedy NMS drops within an image and a class set to 0.

    With `limit`, weaker boxes of a class than its so many strongest may be dropped, too. With `static` no tensor on the
    device has a size that depends on data.
    """
    images, count = found.scores.shape
    classes = found.labels.amax() + 1 if found.labels.numel() else 1
    groups = found.labels + torch.arange(images, device=found.labels.device)[:, None] * classes
    candidate = torch.where(found.scores > 0, found.scores, torch.nan)
    kept = batched_nms(found.boxes.reshape(-1, 4), candidate.flatten(), groups.flatten(), threshold, limit=limit)
    kept = kept.cpu() if static else kept
    stays = torch.zeros(images * count, dtype=torch.bool, device=kept.device).index_fill(0, kept, True)
    stays = stays.view(images, count).to(found.scores.device)
    return found._replace(scores=torch.where(stays, found.scores, 0))


def suppress_by(keep: Keep, found: Found, classes: int, threshold: float, limit: int) -> Found:
    """Return what `suppress` returns, by a function that takes the scores of each class."""
    own = found.labels.unsqueeze(1) == torch.arange(classes, device=found.labels.device)[:, None]
    scores = torch.where(own, found.scores.unsqueeze(1), 0)
    stays = keep(found.boxes, scores, threshold, limit).any(1)
    return found._replace(scores=torch.where(stays, found.scores, 0))


def select_by(keep: Keep, boxes: Tensor, scores: Tensor, floor: float, threshold: float, count: int) -> Found:
    """Return what `select_detections` returns, by a function that takes the scores of each class."""
    by_class = torch.where(scores > floor, scores, 0).transpose(1, 2)
    by_class = torch.where(keep(boxes, by_class, threshold, count), by_class, 0)
    top, index = by_class.flatten(1).topk(count)
    labels = index // boxes.shape[1]
    box = index - labels * boxes.shape[1]
    return Found(boxes.gather(1, box.unsqueeze(-1).expand(-1, -1, 4)), top, labels)


def strongest(found: Found, count: int, *, ties: int = 0, static: bool = False) -> Found:
    """Return the strongest `count` boxes of each image, strongest first, and up to `ties` as strong as the last.

    There are as many as the image has that has the most, with `static` as many as there may be.
    """
    scores, order = found.scores.sort(stable=True, dim=1, descending=True)
    most = min(count + ties, scores.shape[1])
    scores, order = scores[:, :most], order[:, :most]
    if ties and most > count:
        scores = torch.where(scores >= scores[:, count - 1 : count], scores, 0)
    if not static:
        most = max(1, int((scores > 0).sum(1).max())) if scores.numel() else most
        scores, order = scores[:, :most], order[:, :most]
    return found.take(order)._replace(scores=scores)


def select_detections(
    boxes: Tensor, scores: Tensor, floor: float, threshold: float, count: int, *, static: bool = False
) -> Found:
    """Return the strongest `count` detections from boxes (B,K,4) and their scores (B,K,C) of each class.

    Scores above the floor count, and of boxes of a class that overlap the strongest. Boxes with numbers that are not
    finite are dropped.
    """
    classes = scores.shape[2]
    finite = boxes.isfinite().all(-1) & scores.isfinite().all(-1)
    flat = torch.where(finite.unsqueeze(-1) & (scores > floor), scores, 0).flatten(1)
    looked_at = min(max(_FIRST_LOOK, 4 * count), flat.shape[1])
    while True:
        top, index = flat.topk(looked_at)
        box = index // classes
        candidates = Found(boxes.gather(1, box.unsqueeze(-1).expand(-1, -1, 4)), top, index - box * classes)
        kept = suppress(candidates, threshold, count, static=static)
        # weaker detections suppress none of the stronger, so these are the ones if there are enough of them
        too_few = ((kept.scores > 0).sum(1) < count) & (top[:, -1] > 0) if looked_at else top.new_zeros(1).bool()
        if looked_at == flat.shape[1] or not bool(too_few.any()):
            return strongest(kept, count, static=static)
        looked_at = min(4 * looked_at, flat.shape[1])
