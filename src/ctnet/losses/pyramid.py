"""Losses of CenterNet2's first stage (Zhou et al., "Probabilistic two-stage detection", 2021), sums and no means."""

from __future__ import annotations

import torch
from torch import Tensor

_MARGIN = 1e-4
_POSITIVE = 0.25  # weight of positives; the rest is that of negatives


def center_focal(
    logits: Tensor, heat: Tensor, centers: Tensor, counts: Tensor, *, ignore_above: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return two sums: over the cells that hold a centre, and over all cells of (B,C,M) logits.

    `heat` (B,C,M) reduces the second around centres, where it is 1 to nothing; cells whose probability is
    `ignore_above` or more cost nothing in it, unless that is 1. `centers` are flat indices (B,K) into classes and
    cells, which count where `counts` (B,K) is true, a repeated one repeatedly. Computed in at least float32.
    """
    probability = (logits.float() if logits.dtype.itemsize < 4 else logits).sigmoid().clamp(_MARGIN, 1 - _MARGIN)
    flat = probability.flatten(1)
    held = flat.gather(1, centers)
    positive = -(held.log() * (1 - held).square() * counts).sum() * _POSITIVE
    each = -(1 - probability).log() * probability.square() * (1 - heat).pow(4)
    if ignore_above < 1:
        each = each * (probability < ignore_above)
    return positive, each.sum() * (1 - _POSITIVE)


def side_giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return (...,) 1 - GIoU of boxes around one point, given as left, top, right, bottom (...,4) in strides.

    Intersection and union are enlarged by 1 where they are divided, as the original has it. GIoU: Rezatofighi et al.,
    2019, algorithm 1.
    """
    predicted = predicted.float() if predicted.dtype.itemsize < 4 else predicted
    shared = _area(torch.minimum(predicted, target))
    union = _area(predicted) + _area(target) - shared
    hull = _area(torch.maximum(predicted, target))
    return 1 - ((shared + 1) / (union + 1) - (hull - union) / hull)


def _area(sides: Tensor) -> Tensor:
    left, top, right, bottom = sides.unbind(-1)
    return (left + right) * (top + bottom)
