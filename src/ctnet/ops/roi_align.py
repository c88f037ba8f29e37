"""RoIAlign over the levels of a feature pyramid (He et al., "Mask R-CNN", 2017, section 3).

Shape letters: B image, C channel, H W map of a level, R box, P side of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctnet.ops.roi_align_reference import backward, forward, grads_like, output_like

torch.library.define(
    "ctnet::roi_align",
    "(Tensor[] levels, Tensor rois, Tensor batch_index, Tensor level, float[] strides, int output_size, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
torch.library.define(
    "ctnet::roi_align_backward",
    "(Tensor grad_output, Tensor rois, Tensor batch_index, Tensor level, SymInt images, SymInt[] sides, "
    "float[] strides, int sampling_ratio, bool aligned) -> Tensor[]",
)


def roi_align(
    levels: Sequence[Tensor],
    rois: Tensor,
    batch_index: Tensor,
    level: Tensor,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int = 0,
    *,
    aligned: bool = True,
) -> Tensor:
    """Return what lies in the boxes, (R,C,P,P) in the type of the levels, each box sampled from one map.

    A box is cut into P x P bins; a bin is the mean of its bilinear samples. Samples farther than one cell outside the
    map are zero, nearer ones take the value at its edge.

    Args:
        levels: maps (B,C,H,W) of one type, each of its own size.
        rois: (R,4) xyxy in pixels of the image.
        batch_index: (R,) int64, image of each box.
        level: (R,) int64, index into `levels` of each box.
        strides: pixels per cell of each level.
        output_size: P.
        sampling_ratio: samples along each side of a bin; 0 takes one a cell, the side of the bin rounded up.
        aligned: whether the centre of the first cell lies at half a stride (detectron2's ROIAlignV2) or at 0, where
            boxes also have at least a cell along each side, as in the first version.

    Boxes whose image or level does not exist (such as -1), with an edge that is not finite or more than 2^20 cells
    away, and with `sampling_ratio` 0 those without area, give zeros. Differentiable in the levels alone. Numbers on the
    maps that are not finite make exactly the bins not finite whose samples they are a corner of, even of weight zero.

    Raises:
        ValueError: shapes, types or devices do not agree.
    """
    levels = list(levels)
    _check(levels, rois, batch_index, level, strides, output_size, sampling_ratio)
    result: Tensor = torch.ops.ctnet.roi_align(
        levels, rois.detach(), batch_index, level, [float(s) for s in strides], output_size, sampling_ratio, aligned
    )
    return result


def _check(
    levels: list[Tensor], rois: Tensor, batch_index: Tensor, level: Tensor, strides: Sequence[float], size: int,
    ratio: int,
) -> None:  # fmt: skip
    def need(condition: bool, what: str, got: object) -> None:
        if not condition:
            raise ValueError(f"roi_align: {what}, got {got}")

    need(len(levels) > 0, "at least one level expected", "none")
    shapes = [tuple(map.shape) for map in levels]
    need(all(map.dim() == 4 for map in levels), "levels (B,C,H,W) expected", shapes)
    need(all(shape[:2] == shapes[0][:2] for shape in shapes), "levels of the same images and channels expected", shapes)
    need(min(min(shape[2:]) for shape in shapes) > 0, "levels that have sides expected", shapes)
    need(levels[0].is_floating_point(), "levels of a floating type expected", levels[0].dtype)
    types = {map.dtype for map in levels}
    need(len(types) == 1, "levels of one type expected", ", ".join(sorted(map(str, types))))
    need(rois.dim() == 2 and rois.shape[1] == 4, "boxes (R,4) expected", tuple(rois.shape))
    need(rois.is_floating_point(), "boxes of a floating type expected", rois.dtype)
    for name, index in (("batch_index", batch_index), ("level", level)):
        need(index.shape == rois.shape[:1], f"{name} ({rois.shape[0]},) expected", tuple(index.shape))
        need(index.dtype == torch.int64, f"{name} of int64 expected", index.dtype)
    devices = {str(t.device) for t in (*levels, rois, batch_index, level)}
    need(len(devices) == 1, "one device expected", ", ".join(sorted(devices)))
    need(len(strides) == len(levels) and min(strides) > 0, f"{len(levels)} strides above 0 expected", list(strides))
    need(size > 0 and ratio >= 0, "output_size from 1 and sampling_ratio from 0 expected", (size, ratio))


torch.library.impl("ctnet::roi_align", "default", forward)
torch.library.impl("ctnet::roi_align_backward", "default", backward)


@torch.library.register_fake("ctnet::roi_align")
def _forward_shape(levels, rois, batch_index, level, strides, output_size, sampling_ratio, aligned):  # type: ignore[no-untyped-def]
    return output_like(levels, rois, output_size)


@torch.library.register_fake("ctnet::roi_align_backward")
def _backward_shape(grad_output, rois, batch_index, level, images, sides, strides, sampling_ratio, aligned):  # type: ignore[no-untyped-def]
    return grads_like(grad_output, images, sides, grad_output.dtype)


def _save_for_backward(ctx, inputs, output):  # type: ignore[no-untyped-def]
    levels, rois, batch_index, level, ctx.strides, _, ctx.ratio, ctx.aligned = inputs
    ctx.images, ctx.sides = levels[0].shape[0], [side for map in levels for side in map.shape[2:]]
    ctx.save_for_backward(rois, batch_index, level)


def _gradients(ctx, grad_output):  # type: ignore[no-untyped-def]
    grads = torch.ops.ctnet.roi_align_backward(
        grad_output, *ctx.saved_tensors, ctx.images, ctx.sides, ctx.strides, ctx.ratio, ctx.aligned
    )
    return grads, *[None] * 7


torch.library.register_autograd("ctnet::roi_align", _gradients, setup_context=_save_for_backward)
