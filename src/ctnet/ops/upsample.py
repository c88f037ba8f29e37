"""Depthwise transposed convolution: each channel is enlarged by a kernel of its own.

CenterNet up-samples so in DLA-34 and CenterFace; the kernel starts bilinear and is trained like any weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

torch.library.define("ctnet::depthwise_upsample", "(Tensor input, Tensor weight, int stride, int padding) -> Tensor")
torch.library.define(
    "ctnet::depthwise_upsample_backward",
    "(Tensor grad_output, Tensor input, Tensor weight, int stride, int padding) -> (Tensor, Tensor)",
)


def depthwise_upsample(input: Tensor, weight: Tensor, stride: int, padding: int = 0) -> Tensor:
    """Return (N,C,(H-1)*stride-2*padding+k,...) from (N,C,H,W), stored channels-last where the device can.

    The same as `conv_transpose2d` with as many groups as channels; `weight` is (C,1,k,k). Differentiable in both.
    Numbers that are not finite make exactly the results not finite that they enter, be it by a weight of zero; of the
    weight's gradient perhaps all of their channel.
    Under autocast the result has the autocast type.

    Raises:
        ValueError: shapes do not agree.
    """
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, weight = input.to(dtype), weight.to(dtype)
    channels = input.shape[1] if input.dim() == 4 else -1
    kernel = weight.shape[-1]
    if channels < 0 or tuple(weight.shape) != (channels, 1, kernel, kernel):
        raise ValueError(
            f"depthwise_upsample: input (N,C,H,W) and weight (C,1,k,k) expected, "
            f"got {tuple(input.shape)}, {tuple(weight.shape)}"
        )
    if min(kernel, *input.shape[2:]) < 1:
        raise ValueError(f"depthwise_upsample: maps and a kernel that have sides expected, got {tuple(input.shape)}")
    if stride < 1 or padding < 0 or min(_out_size(side, kernel, stride, padding) for side in input.shape[2:]) < 1:
        raise ValueError(f"depthwise_upsample: nothing is left of {tuple(input.shape)} with {stride=} {padding=}")
    if input.device != weight.device:
        raise ValueError(f"depthwise_upsample: one device expected, got {input.device}, {weight.device}")
    if input.dtype != weight.dtype or not input.is_floating_point():
        raise ValueError(f"depthwise_upsample: one floating type expected, got {input.dtype}, {weight.dtype}")
    result: Tensor = torch.ops.ctnet.depthwise_upsample(input, weight, stride, padding)
    return result


def _out_size(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side - 1) * stride - 2 * padding + kernel


def forward(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the up-sampled map by torch's grouped convolution: what a device without a kernel of its own runs."""
    if input.numel() == 0:  # torch knows no convolution without channels
        return output_like(input, weight, stride, padding)
    wide = _wide(input)
    result = F.conv_transpose2d(input.to(wide), weight.to(wide), stride=stride, padding=padding, groups=input.shape[1])
    return result.to(input.dtype).contiguous(memory_format=torch.channels_last)


def _wide(input: Tensor) -> torch.dtype:
    """Return the type to compute in: in bf16 on a CPU, torch's convolution carries NaN to the next channel."""
    return torch.float32 if input.device.type == "cpu" and input.dtype == torch.bfloat16 else input.dtype


def backward(grad_output: Tensor, input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of input and weight by torch's grouped convolution."""
    if input.numel() == 0:
        return torch.zeros_like(input), torch.zeros_like(weight)
    pair = ([stride, stride], [padding, padding])
    wide = _wide(input)
    tensors = (grad_output.to(wide), input.to(wide), weight.to(wide))
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        *tensors, None, *pair, [1, 1], True, [0, 0], input.shape[1], [True, True, False]
    )
    grad_input = grad_input.to(input.dtype).contiguous(memory_format=torch.channels_last)
    return grad_input, grad_weight.to(weight.dtype).contiguous()


torch.library.impl("ctnet::depthwise_upsample", "default", forward)
torch.library.impl("ctnet::depthwise_upsample_backward", "default", backward)


def output_shape(input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[int, int, int, int]:
    """Return the result's shape."""
    height, width = (_out_size(side, weight.shape[-1], stride, padding) for side in input.shape[2:])
    return input.shape[0], input.shape[1], height, width


def output_like(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return the unfilled result."""
    return _channels_last(input, output_shape(input, weight, stride, padding))


def _channels_last(input: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


@torch.library.register_fake("ctnet::depthwise_upsample")
def _forward_shape(input, weight, stride, padding):  # type: ignore[no-untyped-def]
    return output_like(input, weight, stride, padding)


@torch.library.register_fake("ctnet::depthwise_upsample_backward")
def _backward_shape(grad_output, input, weight, stride, padding):  # type: ignore[no-untyped-def]
    return _channels_last(input, input.shape), torch.empty_like(weight, memory_format=torch.contiguous_format)


def _save_for_backward(ctx, inputs, output):  # type: ignore[no-untyped-def]
    input, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(input, weight)


def _gradients(ctx, grad_output):  # type: ignore[no-untyped-def]
    grads = torch.ops.ctnet.depthwise_upsample_backward(grad_output, *ctx.saved_tensors, ctx.stride, ctx.padding)
    return (*grads, None, None)


torch.library.register_autograd("ctnet::depthwise_upsample", _gradients, setup_context=_save_for_backward)
