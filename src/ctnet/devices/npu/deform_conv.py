"""Deformable convolution by torch_npu's own operators.

The vendor's offset tensor holds all x, then all y, then the mask, (N,3*G*T,Ho,Wo); its sampling rule is ours. The
operators compute in float32 whatever they are given. They return the sampled columns, (N,C,Ho*kh,Wo*kw), and want
them back for the gradients; kept for a whole step they would take kh*kw times the memory of the maps, so they are
sampled again. Arguments are passed by position where the vendor's documents disagree about names.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _sampling(
    offset: Tensor, weight: Tensor, channels: int, stride: list[int], padding: list[int], dilation: list[int]
) -> dict[str, Any]:
    taps = weight.shape[2] * weight.shape[3]
    return {
        "kernel_size": [weight.shape[2], weight.shape[3]],
        "stride": [1, 1, *stride],
        "padding": [padding[0], padding[0], padding[1], padding[1]],
        "dilation": [1, 1, *dilation],
        "groups": channels // weight.shape[1],
        "deformable_groups": offset.shape[1] // (2 * taps),
    }


def _packed(input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    """Return offset and mask in the vendor's order.

    Positions that are not finite become some far outside the map, where every sample is zero; so does their mask.
    """
    far = 2.0 * (input.shape[2] + input.shape[3] + max(offset.shape[2:])) + 64
    finite = offset.float().nan_to_num(far).clamp(-far, far)
    dy, dx = finite.reshape(offset.shape[0], -1, 2, *offset.shape[2:]).unbind(2)
    if mask is None:
        return torch.cat([dx, dy, torch.ones_like(dx)], 1)
    is_place = offset.reshape(offset.shape[0], -1, 2, *offset.shape[2:]).isfinite().all(2)
    return torch.cat([dx, dy, torch.where(is_place, mask.float(), 0.0)], 1)


def forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Return what the reference returns, stored as the vendor stores it."""
    import torch_npu

    if input.numel() == 0:  # the vendor takes no empty tensors
        return input.new_zeros((input.shape[0], weight.shape[0], *offset.shape[2:]))
    output: Tensor
    output, _ = torch_npu.npu_deformable_conv2d(
        input.float(),
        weight.float(),
        _packed(input, offset, mask),
        None if bias is None else bias.float(),
        **_sampling(offset, weight, input.shape[1], stride, padding, dilation),
    )
    return output.to(input.dtype)


def backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the reference returns, stored as the vendor stores it."""
    import torch_npu

    no_mask = offset.new_empty((offset.shape[0], 0))
    if grad_output.numel() == 0 or input.numel() == 0:
        grad_mask = no_mask if mask is None else torch.zeros_like(mask)
        return torch.zeros_like(input), torch.zeros_like(offset), torch.zeros_like(weight), grad_mask
    sampling = _sampling(offset, weight, input.shape[1], stride, padding, dilation)
    map, filters, packed = input.float(), weight.float(), _packed(input, offset, mask)
    # the columns depend on no filter, so one a group is enough to get them
    _, columns = torch_npu.npu_deformable_conv2d(map, filters[: sampling["groups"]], packed, None, **sampling)
    grad_map, grad_filters, grad_packed, _ = torch_npu.npu_deformable_conv2dbk(
        map, grad_output.float(), columns, filters, packed, **sampling
    )
    by_x, by_y, by_mask = grad_packed.chunk(3, 1)
    grad_offset = torch.stack([by_y, by_x], 2).flatten(1, 2)
    return (
        grad_map.to(input.dtype),
        grad_offset.to(offset.dtype),
        grad_filters.to(weight.dtype),
        no_mask if mask is None else by_mask.to(mask.dtype),
    )
