"""The penalty-reduced focal loss of centre heatmaps ("Objects as Points", eq. 1; from CornerNet)."""

from __future__ import annotations

from torch import Tensor

# Probabilities keep this distance from 0 and 1, as upstream; below fp16's resolution, hence always float32 here.
_MARGIN = 1e-4


def heatmap_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the scalar loss of (B,C,H,W) logits against a heatmap whose centres are exactly 1.

    The sum over all cells divided by the number of centres in the batch; without any centre, the sum itself.
    Computed in at least float32.
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    probability = logits.sigmoid().clamp(_MARGIN, 1 - _MARGIN)
    positive = target.eq(1)
    centers = positive.sum().clamp(min=1)
    rest = 1 - probability
    at_centers = probability.log() * rest.square() * positive
    elsewhere = rest.log() * probability.square() * (1 - target).pow(4) * ~positive
    return -(at_centers + elsewhere).sum() / centers
