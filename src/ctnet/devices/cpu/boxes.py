"""NMS by the compiled kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ctnet.devices.cpu.native import library, pointer


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return what the reference returns."""
    boxes, labels = boxes.double().contiguous(), labels.long().contiguous()
    scores = scores.detach().double().contiguous()
    order = torch.argsort(scores, descending=True, stable=True).numpy()
    # selected by numpy: torch wakes all threads to select by a mask, however little there is
    order = order[~np.isnan(scores.numpy()[order])]
    keep = np.empty(len(boxes), np.bool_)
    library().ctnet_nms(
        len(order),
        *map(pointer, (boxes, scores, labels, torch.from_numpy(order))),
        iou_threshold,
        float(plus_one),
        -1 if limit is None else limit,
        keep.ctypes.data,
        torch.get_num_threads(),
    )
    return torch.from_numpy(order[keep[order]])


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    sigma: float,
    iou_threshold: float,
    score_floor: float,
    plus_one: bool,
) -> Tensor:
    """Return what the reference returns."""
    boxes = boxes.double().contiguous()
    decayed = scores.to(torch.float64, memory_format=torch.contiguous_format, copy=True)
    library().ctnet_soft_nms(
        len(boxes),
        pointer(boxes),
        pointer(decayed),
        int(method == "gaussian"),
        sigma,
        iou_threshold,
        score_floor,
        float(plus_one),
    )
    return decayed.to(scores.dtype)
