"""Peaks of heatmaps in steps whose sizes are known beforehand, on 32-bit numbers.

Selecting by a mask would make sizes depend on data, which costs a compilation each; the reference's 64-bit keys are
what the vector unit lacks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.ops.peaks import reference_peaks

_EXACT = 2**24  # up to here float32 counts without gaps


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference returns."""
    if not 0 < heatmap_logits[:1].numel() < _EXACT:
        return reference_peaks(heatmap_logits, top_k)
    logits = heatmap_logits.float()
    is_number = logits == logits
    largest = torch.finfo(torch.float32).max
    # Max-pooling on NPUs handles neither -inf nor NaN: both become +inf, which no finite cell equals.
    finite = torch.where(is_number, logits.clamp(-largest, largest) + 0.0, torch.inf)
    is_peak = (finite == F.max_pool2d(finite, 3, stride=1, padding=1)) & is_number
    values, index = _first_of_equals(torch.where(is_peak, finite, -torch.inf).flatten(1), top_k)
    scores = values.sigmoid()
    index = torch.where(scores > 0, index, 0)
    cells, missing = logits.shape[2] * logits.shape[3], (0, top_k - scores.shape[1])
    labels = index.div(cells, rounding_mode="floor")
    return F.pad(scores, missing), F.pad(labels, missing), F.pad(index - labels * cells, missing)


def _first_of_equals(values: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the largest (B,K) of values (B,N) and their indices, equal ones in rising order of index.

    `topk` may take any of those equal to the last one it takes, so their places are filled again with the first.
    """
    top_k = min(top_k, values.shape[1])
    kept, index = values.topk(top_k)
    last = kept[:, -1:]
    place = torch.arange(values.shape[1], dtype=torch.float32, device=values.device)
    first = torch.where(values == last, -place, -torch.inf).topk(top_k).indices
    index, order = index.sort(1)
    kept, order = torch.sort(kept.gather(1, order), dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    stronger = (kept > last).sum(1, keepdim=True)
    rank = torch.arange(top_k, device=values.device)
    return kept, torch.where(rank < stronger, index, first.gather(1, (rank - stronger).clamp(min=0)))
