"""Modulated deformable convolution (DCNv2: Zhu et al., "Deformable ConvNets v2", 2019, eq. 1).

Shape letters: N image, C input channel, O output channel, H W input map, T kernel tap (row-major), G deformable group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.ops.deform_conv_reference import Pair, backward, forward, grads_like, output_like

torch.library.define(
    "ctnet::deform_conv2d",
    "(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, "
    "int[2] stride, int[2] padding, int[2] dilation) -> Tensor",
)
torch.library.define(
    "ctnet::deform_conv2d_backward",
    "(Tensor grad_output, Tensor input, Tensor offset, Tensor weight, Tensor? mask, "
    "int[2] stride, int[2] padding, int[2] dilation) -> (Tensor, Tensor, Tensor, Tensor)",
)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the deformable convolution of `input`, (N,O,Ho,Wo), stored channels-last where the device can.

    Args:
        input: (N,C,H,W).
        offset: (N,2*G*T,Ho,Wo) in input pixels; per deformable group and tap first dy, then dx.
        weight: (O,C/groups,kh,kw); the number of groups follows from the shapes.
        bias: (O,) or None.
        stride: of the sampling grid, one number or (rows, columns).
        padding: of the sampling grid; samples outside the map are zero.
        dilation: distance between taps.
        mask: (N,G*T,Ho,Wo), factor of each sample, or None for ones.

    Differentiable in all tensors; at whole-pixel positions the offset's derivative is the one towards larger
    coordinates. Samples at -1 or below, at H or W or beyond, or not finite, contribute zero to value and gradients,
    whatever their mask is. Other numbers that are not finite make exactly the results they enter not finite, be it by a
    factor of zero, a weight those of every cell; which of NaN and infinity they become depends on the device.
    Under autocast the product runs in the autocast type, offsets and mask keep theirs.

    Raises:
        ValueError: shapes do not agree.
    """
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    _check(input, offset, weight, bias, mask, stride, padding, dilation)
    result: Tensor = torch.ops.ctnet.deform_conv2d(input, offset, weight, bias, mask, stride, padding, dilation)
    return result


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _out_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _check(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> None:
    def need(condition: bool, what: str, got: object) -> None:
        if not condition:
            raise ValueError(f"deform_conv2d: {what}, got {got}")

    need(input.dim() == 4, "input must be N,C,H,W", tuple(input.shape))
    need(weight.dim() == 4, "weight must be O,C/groups,kh,kw", tuple(weight.shape))
    need(offset.dim() == 4, "offset must be N,2*G*T,Ho,Wo", tuple(offset.shape))
    need(min(stride) > 0, "stride must be positive", stride)
    need(min(dilation) > 0, "dilation must be positive", dilation)
    need(min(padding) >= 0, "padding must not be negative", padding)
    need(input.is_floating_point() and offset.is_floating_point(), "floating point is needed", input.dtype)
    need(input.dtype == weight.dtype, f"input and weight must share a type ({input.dtype})", weight.dtype)
    devices = {t.device for t in (input, offset, weight, bias, mask) if t is not None}
    need(len(devices) == 1, "all tensors must be on one device", ", ".join(sorted(map(str, devices))))
    images, channels, height, width = input.shape
    need(channels > 0, "input must have channels", tuple(input.shape))
    filters, group_channels, *kernel = weight.shape
    need(min(kernel) > 0, "the kernel must have a size", tuple(kernel))
    need(
        group_channels > 0 and channels % group_channels == 0,
        f"{channels} input channels must be a multiple of weight.shape[1]",
        group_channels,
    )
    groups = channels // max(group_channels, 1)
    need(filters % groups == 0, f"output channels must divide into {groups} groups", filters)
    taps = kernel[0] * kernel[1]
    out = tuple(_out_size(*numbers) for numbers in zip((height, width), kernel, stride, padding, dilation, strict=True))
    need(min(out) > 0, "the kernel must fit into the padded input", tuple(input.shape))
    need(
        offset.shape[0] == images and tuple(offset.shape[2:]) == out,
        f"offset must be {images},2*G*T,{out[0]},{out[1]}",
        tuple(offset.shape),
    )
    need(
        offset.shape[1] > 0 and offset.shape[1] % (2 * taps) == 0,
        f"offset channels must be a multiple of 2 x {taps} taps",
        offset.shape[1],
    )
    deform_groups = offset.shape[1] // (2 * taps)
    need(channels % deform_groups == 0, f"channels must divide into {deform_groups} groups", channels)
    if mask is not None:
        expected = (images, deform_groups * taps, *out)
        need(tuple(mask.shape) == expected, f"mask must be {expected}", tuple(mask.shape))
    if bias is not None:
        need(tuple(bias.shape) == (filters,), f"bias must be ({filters},)", tuple(bias.shape))


torch.library.impl("ctnet::deform_conv2d", "default", forward)
torch.library.impl("ctnet::deform_conv2d_backward", "default", backward)


@torch.library.register_fake("ctnet::deform_conv2d")
def _forward_shape(input, offset, weight, bias, mask, stride, padding, dilation):  # type: ignore[no-untyped-def]
    return output_like(input, offset, weight)


@torch.library.register_fake("ctnet::deform_conv2d_backward")
def _backward_shape(grad_output, input, offset, weight, mask, stride, padding, dilation):  # type: ignore[no-untyped-def]
    return grads_like(input, offset, weight, mask)


def _save_for_backward(ctx, inputs, output):  # type: ignore[no-untyped-def]
    input, offset, weight, bias, mask, ctx.stride, ctx.padding, ctx.dilation = inputs
    ctx.save_for_backward(input, offset, weight, mask)
    ctx.has_bias = bias is not None


def _gradients(ctx, grad_output):  # type: ignore[no-untyped-def]
    input, offset, weight, mask = ctx.saved_tensors
    grad_input, grad_offset, grad_weight, grad_mask = torch.ops.ctnet.deform_conv2d_backward(
        grad_output, input, offset, weight, mask, ctx.stride, ctx.padding, ctx.dilation
    )
    grad_bias = grad_output.sum((0, 2, 3)) if ctx.has_bias else None
    return (
        grad_input,
        grad_offset,
        grad_weight,
        grad_bias,
        grad_mask if mask is not None else None,
        None,
        None,
        None,
    )


torch.library.register_autograd("ctnet::deform_conv2d", _gradients, setup_context=_save_for_backward)
