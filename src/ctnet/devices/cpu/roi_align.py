"""RoIAlign by the compiled kernels."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, RoiShape, library, pointer
from ctnet.ops import roi_align_reference as reference


def forward(
    levels: list[Tensor], rois: Tensor, batch_index: Tensor, level: Tensor, strides: list[float], output_size: int,
    sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """Return what the reference returns."""
    map = levels[0]
    if map.dtype not in TYPES:
        return reference.forward(levels, rois, batch_index, level, strides, output_size, sampling_ratio, aligned)
    kind = reference.wide(map.dtype)
    boxes = reference.geometry(
        rois.to(kind), batch_index, level, map.shape[0], strides, output_size, sampling_ratio, aligned
    )
    output = reference.output_like(levels, rois, output_size)
    maps = [map.contiguous(memory_format=torch.channels_last) for map in levels]
    sides = [side for map in maps for side in map.shape[2:]]
    if output.numel() > 0:
        _call("roi_align", map.dtype, map.shape[1], output_size, sides, boxes, batch_index, level, maps, output)
    return output


def backward(
    grad_output: Tensor, rois: Tensor, batch_index: Tensor, level: Tensor, images: int, sides: list[int],
    strides: list[float], sampling_ratio: int, aligned: bool,
) -> list[Tensor]:  # fmt: skip
    """Return what the reference returns. Sums are taken in an order that depends on the boxes alone."""
    dtype, (channels, size) = grad_output.dtype, grad_output.shape[1:3]
    if dtype not in TYPES:
        return reference.backward(
            grad_output, rois, batch_index, level, images, sides, strides, sampling_ratio, aligned
        )
    kind = reference.wide(dtype)
    boxes = reference.geometry(rois.to(kind), batch_index, level, images, strides, size, sampling_ratio, aligned)
    sums = [grad.zero_() for grad in reference.grads_like(grad_output, images, sides, kind)]
    grad_output = grad_output.contiguous()
    if grad_output.numel() > 0 and images > 0:
        _call("roi_align_backward", dtype, channels, size, sides, boxes, batch_index, level, sums, grad_output)
    return [grad.to(dtype) for grad in sums]


def _call(
    name: str, dtype: torch.dtype, channels: int, size: int, sides: list[int], boxes: Tensor, batch_index: Tensor,
    level: Tensor, maps: list[Tensor], bins: Tensor,
) -> None:  # fmt: skip
    """Call a kernel on maps (of values or sums) and bins; the forward kernel takes the maps first."""
    boxes, batch_index, level = boxes.contiguous(), batch_index.contiguous(), level.contiguous()
    lengths = (ctypes.c_int64 * len(sides))(*sides)
    pointers = (ctypes.c_void_p * len(maps))(*(pointer(map) for map in maps))
    shape = RoiShape(
        len(boxes), channels, size, ctypes.addressof(lengths), pointer(batch_index), pointer(level), pointer(boxes)
    )
    tensors = (pointers, pointer(bins)) if name == "roi_align" else (pointer(bins), pointers)
    getattr(library(), f"ctnet_{name}")(shape, TYPES[dtype], *tensors, torch.get_num_threads())
