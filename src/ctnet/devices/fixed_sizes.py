"""Peaks of heatmaps in steps whose sizes are known beforehand, on 32-bit numbers: for devices with fixed shapes.

Selecting by a mask would make sizes depend on data, which costs a compilation each; the reference's 64-bit keys are
what vector units lack, and infinities what some top-k kernels refuse. Each class is searched alone, so that a top-k
sees one map and not all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.devices.torch_device import Kernels
from ctnet.ops.peaks import reference_peaks

_EXACT = 2**24  # up to here float32 counts without gaps
_LARGEST = torch.finfo(torch.float32).max


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference returns."""
    images, classes, height, width = heatmap_logits.shape
    cells = height * width
    if heatmap_logits.numel() == 0 or max(cells, classes * min(top_k, cells)) >= _EXACT:
        return reference_peaks(heatmap_logits, top_k)
    logits = heatmap_logits.float()
    is_number = logits == logits
    # Max-pooling on NPUs handles neither -inf nor NaN: both become +inf, which no finite cell equals.
    finite = torch.where(is_number, logits.clamp(-_LARGEST, _LARGEST) + 0.0, torch.inf)
    is_peak = (finite == F.max_pool2d(finite, 3, stride=1, padding=1)) & is_number
    values = torch.where(is_peak, finite, -_LARGEST).reshape(images * classes, cells)
    kept, cell = _first_of_equals(values, min(top_k, cells))
    kept, cell = kept.reshape(images, -1), cell.reshape(images, -1)
    values, place = _first_of_equals(kept, min(top_k, kept.shape[1]))
    scores = values.sigmoid()  # that of a place without a peak is zero
    found = scores > 0
    labels = torch.where(found, place.div(min(top_k, cells), rounding_mode="floor"), 0)
    index = torch.where(found, cell.gather(1, place), 0)
    missing = (0, top_k - scores.shape[1])
    return F.pad(scores, missing), F.pad(labels, missing), F.pad(index, missing)


def _first_of_equals(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest (B,K) of finite values (B,N) and their indices, equal ones in rising order of index.

    `topk` may take any of those equal to the last one it takes, so their places are filled again with the first.
    """
    kept, index = values.topk(count)
    last = kept[:, -1:]
    place = torch.arange(values.shape[1], dtype=torch.float32, device=values.device)
    first = torch.where(values == last, -place, -float(_EXACT)).topk(count).indices
    order = index.float().sort(1).indices
    index = index.gather(1, order)
    kept, order = torch.sort(kept.gather(1, order), dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    stronger = (kept > last).sum(1, keepdim=True)
    rank = torch.arange(count, device=values.device)
    return kept, torch.where(rank < stronger, index, first.gather(1, (rank - stronger).clamp(min=0)))


KERNELS: Kernels = {"decode_peaks": decode_peaks}
REASON = "torch (top-k of each class, fixed sizes, float32)"
