"""Peaks of heatmaps by the compiled kernel: one pass, nothing of the map's size is allocated."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, library, pointer, strides


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference returns."""
    map = _readable(heatmap_logits)
    shape = (len(map), top_k)
    scores = torch.empty(shape)
    labels, cells = torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.int64)
    library().ctnet_decode_peaks(
        TYPES[map.dtype],
        pointer(map),
        (ctypes.c_int64 * 4)(*map.shape),
        strides(map),
        top_k,
        pointer(scores),
        pointer(labels),
        pointer(cells),
        torch.get_num_threads(),
    )
    return scores, labels, cells


def _readable(map: Tensor) -> Tensor:
    """Return the map in a type and layout that the kernel reads: rows of one class, or rows of all classes."""
    if map.dtype not in (torch.float32, torch.bfloat16):
        map = map.float()
    classes, columns = map.stride(1), map.stride(3)
    plane_rows = columns == 1 or map.shape[3] == 1
    class_rows = classes == 1 and columns == map.shape[1]
    return map if class_rows or plane_rows else map.contiguous()
