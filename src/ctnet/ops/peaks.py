"""Local maxima of centre heatmaps, strongest first ("Objects as Points", section 4: peaks instead of NMS).

Shape letters: B image, C class, H W map, K kept peaks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

torch.library.define(
    "ctnet::decode_peaks",
    "(Tensor heatmap_logits, int top_k) -> (Tensor scores, Tensor labels, Tensor cells)",
)


class Peaks(NamedTuple):
    """The strongest peaks of each image, in falling order of logit."""

    scores: Tensor  # (B,K) float32, probability; 0 where an image has fewer peaks
    labels: Tensor  # (B,K) int64, class index
    cells: Tensor  # (B,K) int64, row * W + column


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> Peaks:
    """Return the `top_k` strongest peaks of (B,C,H,W) logits over all classes.

    A cell is a peak when none of its eight neighbours of the same class has a larger logit, so a flat plateau yields
    several; NaN is no peak and neither are its neighbours, and an infinite one has score 1. Equal peaks are sorted by
    class, then cell. Scores are float32 whatever the logits are. Missing peaks have score 0, label 0, cell 0. Not
    differentiable.

    Raises:
        ValueError: the map is not four-dimensional or `top_k` is below 1.
    """
    if heatmap_logits.dim() != 4 or top_k < 1:
        raise ValueError(f"decode_peaks: B,C,H,W and top_k >= 1 expected, got {tuple(heatmap_logits.shape)}, {top_k}")
    return Peaks(*torch.ops.ctnet.decode_peaks(heatmap_logits.detach(), top_k))


def reference_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, labels and cells by the reference."""
    logits = heatmap_logits.float() + 0.0  # -0.0 becomes 0.0
    images, _, height, width = logits.shape
    if logits.numel() == 0:
        empty = torch.zeros((images, top_k), dtype=torch.int64, device=logits.device)
        return empty.float(), empty, empty.clone()
    ridge = F.max_pool2d(logits, 3, stride=1, padding=1)
    key, index = _strongest(logits.flatten(1), (logits == ridge).flatten(1), top_k)
    scores = torch.where(key != _NO_PEAK, logits.flatten(1).gather(1, index), -torch.inf).sigmoid()
    # A score that rounds to zero is no peak.
    index = torch.where(scores > 0, index, 0)
    missing, cells = (0, top_k - scores.shape[1]), height * width
    return (
        F.pad(scores, missing),
        F.pad(index.div(cells, rounding_mode="floor"), missing),
        F.pad(index % cells, missing),
    )


_NO_PEAK = torch.iinfo(torch.int64).min


def _strongest(logits: Tensor, is_peak: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return keys and indices (B,K) of the largest peaks; the key orders by logit, then by falling index.

    A float's bits are an integer that sorts like the float once those of negative ones are turned over.
    """
    bits = logits.contiguous().view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    index = torch.arange(logits.shape[1], device=logits.device)
    key = torch.where(is_peak, ordered * (1 << 32) + (0xFFFFFFFF - index), _NO_PEAK)
    kept = key.topk(min(top_k, key.shape[1]))
    return kept.values, kept.indices


torch.library.impl("ctnet::decode_peaks", "default", reference_peaks)


@torch.library.register_fake("ctnet::decode_peaks")
def _shapes(heatmap_logits, top_k):  # type: ignore[no-untyped-def]
    shape = (heatmap_logits.shape[0], top_k)
    index = heatmap_logits.new_empty(shape, dtype=torch.int64)
    return heatmap_logits.new_empty(shape, dtype=torch.float32), index, torch.empty_like(index)
