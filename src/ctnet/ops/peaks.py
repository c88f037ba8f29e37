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
    """The strongest peaks of each image, in falling order of score."""

    scores: Tensor  # (B,K) float32, probability; 0 where an image has fewer peaks
    labels: Tensor  # (B,K) int64, class index
    cells: Tensor  # (B,K) int64, row * W + column


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> Peaks:
    """Return the `top_k` strongest peaks of (B,C,H,W) logits over all classes.

    A cell is a peak when none of its eight neighbours of the same class beats its probability, so a flat plateau
    yields several. Probabilities are float32 whatever the logits are. Missing peaks have score 0, label 0, cell 0.
    Not differentiable.

    Raises:
        ValueError: the map is not four-dimensional or `top_k` is below 1.
    """
    if heatmap_logits.dim() != 4 or top_k < 1:
        raise ValueError(f"decode_peaks: B,C,H,W and top_k >= 1 expected, got {tuple(heatmap_logits.shape)}, {top_k}")
    return Peaks(*torch.ops.ctnet.decode_peaks(heatmap_logits.detach(), top_k))


@torch.library.impl("ctnet::decode_peaks", "default")
def _decode_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    images, _, height, width = heatmap_logits.shape
    probability = heatmap_logits.float().sigmoid()
    if probability.numel() == 0:
        empty = torch.zeros((images, top_k), dtype=torch.int64, device=probability.device)
        return empty.float(), empty, empty.clone()
    ridge = F.max_pool2d(probability, 3, stride=1, padding=1)
    flat = torch.where(probability == ridge, probability, 0).flatten(1)
    kept = min(top_k, flat.shape[1])
    scores, index = flat.topk(kept)
    missing = (0, top_k - kept)
    cells = height * width
    # A score of 0 is no peak: which cell it names would depend on the kernel.
    index = torch.where(scores > 0, index, 0)
    return (
        F.pad(scores, missing),
        F.pad(index.div(cells, rounding_mode="floor"), missing),
        F.pad(index % cells, missing),
    )


@torch.library.register_fake("ctnet::decode_peaks")
def _shapes(heatmap_logits, top_k):  # type: ignore[no-untyped-def]
    shape = (heatmap_logits.shape[0], top_k)
    index = heatmap_logits.new_empty(shape, dtype=torch.int64)
    return heatmap_logits.new_empty(shape, dtype=torch.float32), index, torch.empty_like(index)
