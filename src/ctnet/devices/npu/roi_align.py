"""RoIAlign by torch_npu's own operators, a call a level, in float32.

They take rows (image, x1, y1, x2, y2). Their mode 2 moves boxes by half a cell, as `aligned` does; mode 0 is the first
version of RoIAlign. So that sizes are known beforehand, every level pools all boxes, those of other levels as a box
without sides, and the results of those are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctnet.ops import roi_align_reference as reference


def forward(
    levels: list[Tensor], rois: Tensor, batch_index: Tensor, level: Tensor, strides: list[float], output_size: int,
    sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """Return what the reference returns."""
    import torch_npu

    output = reference.output_like(levels, rois, output_size).zero_()
    if output.numel() == 0 or levels[0].numel() == 0:
        return output
    given = (batch_index, level, levels[0].shape[0], strides, output_size, sampling_ratio, aligned)
    mine, boxes = _of_levels(rois, *given)
    for index, (map, stride) in enumerate(zip(levels, strides, strict=True)):
        bins = torch_npu.npu_roi_align(
            map.float(), boxes[index], 1 / stride, output_size, output_size, sampling_ratio, _mode(aligned)
        )
        output = torch.where(mine[index], bins.to(output.dtype), output)
    return output


def backward(
    grad_output: Tensor, rois: Tensor, batch_index: Tensor, level: Tensor, images: int, sides: list[int],
    strides: list[float], sampling_ratio: int, aligned: bool,
) -> list[Tensor]:  # fmt: skip
    """Return what the reference returns, stored as the vendor stores it."""
    import torch_npu

    channels, size = grad_output.shape[1:3]
    shapes = [[images, channels, *pair] for pair in zip(sides[::2], sides[1::2], strict=True)]
    if grad_output.numel() == 0 or images == 0:
        return [grad_output.new_zeros(shape) for shape in shapes]
    mine, boxes = _of_levels(rois, batch_index, level, images, strides, size, sampling_ratio, aligned)
    return [
        torch_npu.npu_roi_alignbk(
            torch.where(mine[index], grad_output.float(), 0), boxes[index], shape, size, size, 1 / stride,
            sampling_ratio, _mode(aligned),
        ).to(grad_output.dtype)
        for index, (shape, stride) in enumerate(zip(shapes, strides, strict=True))
    ]  # fmt: skip


def _mode(aligned: bool) -> int:
    return 2 if aligned else 0


def _of_levels(rois: Tensor, batch_index: Tensor, level: Tensor, *given: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return for each level which boxes it has, (R,1,1,1), and the rows (R,5) of its call."""
    rois = rois.float()
    samples = reference.geometry(rois, batch_index, level, *given)[:, 4:]
    usable = (samples > 0).all(1)
    rows = torch.cat([batch_index[:, None].float(), rois], 1)
    mine = [usable & (level == index) for index in range(len(given[1]))]
    return [own[:, None, None, None] for own in mine], [torch.where(own[:, None], rows, 0) for own in mine]
