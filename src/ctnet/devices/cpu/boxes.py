"""NMS by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.cpu.native import library, pointer
from ctnet.ops.nms import strongest_first


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return what the reference returns."""
    order = strongest_first(scores)
    boxes, scores, labels = boxes.double().contiguous(), scores.double().contiguous(), labels.long().contiguous()
    keep = torch.empty(len(boxes), dtype=torch.bool)
    library().ctnet_nms(
        len(order),
        *map(pointer, (boxes, scores, labels, order)),
        iou_threshold,
        float(plus_one),
        -1 if limit is None else limit,
        pointer(keep),
        torch.get_num_threads(),
    )
    return order[keep[order]]


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
