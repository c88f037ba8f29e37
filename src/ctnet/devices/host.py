"""NMS kernels that run on the CPU: they are small and sequential."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.torch_device import Kernels


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return what the kernel of the CPU returns, on the device of the boxes."""
    kept: Tensor = torch.ops.ctnet.nms(boxes.cpu(), scores.cpu(), labels.cpu(), iou_threshold, plus_one, limit)
    return kept.to(boxes.device)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    sigma: float,
    iou_threshold: float,
    score_floor: float,
    plus_one: bool,
) -> Tensor:
    """Return what the kernel of the CPU returns, on the device of the boxes."""
    arguments = (method, sigma, iou_threshold, score_floor, plus_one)
    decayed: Tensor = torch.ops.ctnet.soft_nms(boxes.cpu(), scores.cpu(), *arguments)
    return decayed.to(boxes.device)


KERNELS: Kernels = {"nms": nms, "soft_nms": soft_nms}
REASON = "CPU (a few hundred boxes at most, processed one after the other)"
