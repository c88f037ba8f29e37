"""The penalty-reduced focal loss of centre heatmaps ("Objects as Points", eq. 1; from CornerNet)."""

from __future__ import annotations

from torch import Tensor

# Clamp to [1e-4, 1 - 1e-4] as the original does; fp16 cannot represent 1 - 1e-4, so compute in float32.
_MARGIN = 1e-4
# mmdet's guard of its logarithms instead
_TINY = 1e-12


def count_centers(heatmap: Tensor) -> Tensor:
    """Return the number of centres in a heatmap of any shape: cells that are exactly 1."""
    return heatmap.eq(1).sum()


def heatmap_focal_loss(
    logits: Tensor, target: Tensor, centers: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the scalar loss of (B,C,H,W) logits against a heatmap whose centres are exactly 1.

    The sum over all cells divided by the number of centres in the batch; without any centre, the sum.
    `centers`, a scalar, replaces that number: a batch may be a part of a larger one. `weights` (C,) multiply the cells
    of each class. Computed in at least float32.
    """
    probability = _probability(logits).clamp(_MARGIN, 1 - _MARGIN)
    rest = 1 - probability
    return _focal(probability, rest, probability.log(), rest.log(), target, centers, weights)


def unclamped_focal_loss(
    logits: Tensor, target: Tensor, centers: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return mmdet's form of `heatmap_focal_loss`, which does not clamp probabilities."""
    probability = _probability(logits)
    rest = 1 - probability
    return _focal(probability, rest, (probability + _TINY).log(), (rest + _TINY).log(), target, centers, weights)


def heatmap_squared_loss(logits: Tensor, target: Tensor, cells: Tensor | None = None) -> Tensor:
    """Return the squared distance of probabilities to a heatmap, summed and divided by the number of cells.

    `cells`, a scalar, replaces that number: a batch may be a part of a larger one.
    """
    total = (_probability(logits) - target).square().sum()
    return total / (target.numel() if cells is None else cells.clamp(min=1))


def _probability(logits: Tensor) -> Tensor:
    return (logits.float() if logits.dtype.itemsize < 4 else logits).sigmoid()


def _focal(
    probability: Tensor, rest: Tensor, log_probability: Tensor, log_rest: Tensor, target: Tensor,
    centers: Tensor | None, weights: Tensor | None,
) -> Tensor:  # fmt: skip
    positive = target.eq(1)
    at_centers = log_probability * rest.square() * positive
    elsewhere = log_rest * probability.square() * (1 - target).pow(4) * ~positive
    cells = at_centers + elsewhere
    if weights is not None:
        cells = cells * weights.to(cells)[:, None, None]
    return -cells.sum() / (count_centers(target) if centers is None else centers).clamp(min=1)
