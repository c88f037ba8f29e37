"""Boxes in ONNX: NMS and RoIAlign by the standard's operators.

What a graph is traced with stands here as operators without a kernel; `translations` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

torch.library.define("ctnet_onnx::kept", "(Tensor boxes, Tensor scores, float iou_threshold, int limit) -> Tensor")


def kept(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Return which boxes (B,K,4) of each class greedy NMS keeps, bool like scores (B,C,K); scores of 0 are none.

    It keeps the `limit` strongest of a class at most. To be traced, not run.
    """
    mask: Tensor = torch.ops.ctnet_onnx.kept(boxes, scores, iou_threshold, limit)
    return mask


@torch.library.register_fake("ctnet_onnx::kept")
def _kept_shape(boxes, scores, iou_threshold, limit):  # type: ignore[no-untyped-def]
    return torch.empty_like(scores, dtype=torch.bool)


def translations() -> Mapping[Any, Callable[..., Any]]:
    """Return the functions that give the ONNX nodes of each operator."""
    return {torch.ops.ctnet_onnx.kept.default: _kept, torch.ops.ctnet.roi_align.default: _roi_align}


def _kept(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
    from onnxscript import opset19 as op

    numbers = [op.Constant(value_float=iou_threshold), op.Constant(value_float=0.0)]
    found = op.NonMaxSuppression(boxes, scores, op.Constant(value_ints=[limit]), *numbers)
    count = op.Slice(op.Shape(found), op.Constant(value_ints=[0]), op.Constant(value_ints=[1]))
    ones = op.Expand(op.Constant(value_float=1.0), count)
    nothing = op.Mul(scores, op.Constant(value_float=0.0))
    return op.Greater(op.ScatterND(nothing, found, ones), op.Constant(value_float=0.5))


def _roi_align(
    levels: Any, rois: Any, batch_index: Any, level: Any, strides: Any, output_size: int, sampling_ratio: int,
    aligned: bool,
) -> Any:  # fmt: skip
    """Each level pools the boxes that are its own, and they go back to their places."""
    from onnxscript import opset19 as op

    channels = op.Slice(op.Shape(levels[0]), op.Constant(value_ints=[1]), op.Constant(value_ints=[2]))
    count = op.Slice(op.Shape(rois), op.Constant(value_ints=[0]), op.Constant(value_ints=[1]))
    size = op.Constant(value_ints=[output_size, output_size])
    result = op.Expand(op.Constant(value_float=0.0), op.Concat(count, channels, size, axis=0))
    for number, (features, stride) in enumerate(zip(levels, strides, strict=True)):
        own = op.Transpose(op.NonZero(op.Equal(level, op.Constant(value_int=number))), perm=[1, 0])
        pooled = op.RoiAlign(
            features, op.GatherND(rois, own), op.GatherND(batch_index, own),
            mode="avg", output_height=output_size, output_width=output_size, sampling_ratio=sampling_ratio,
            spatial_scale=1 / stride, coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        )  # fmt: skip
        result = op.ScatterND(result, own, pooled)
    return result
