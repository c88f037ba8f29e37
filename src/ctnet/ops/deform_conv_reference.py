"""The deformable convolution in plain torch: what a device without a kernel of its own runs, and what kernels equal.

The map is laid out as rows of channels, so that bilinear sampling is a weighted sum of four rows (`embedding_bag`) and
the rest is one matrix product.

Shape letters: N image, C input channel, O output channel, H W input map, P output cell (row-major), T kernel tap
(row-major), G deformable group, 4 the corners around a sampling point (top-left, top-right, bottom-left,
bottom-right).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]

# Columns of as many images as fit are multiplied at once; more would only cost memory.
_COLUMN_BYTES = 64 << 20
# Rows gathered at a time for the corner gradients: small enough to stay in a core's cache.
_DOT_ROWS = 4096


class Sampling(NamedTuple):
    """Where and how strongly each tap reads the map; all tensors are (N,P,T,G) or (N,P,T,G,4)."""

    row: Tensor  # index into the table of shape (N*H*W*G + 1, C/G), per corner; its last row is zero
    bilinear: Tensor  # weight of each corner, zero where the corner or the sample lies outside
    d_dy: Tensor  # derivative of `bilinear` by the sample's y
    d_dx: Tensor
    mask: Tensor | None  # zero where the sample lies outside
    outside: Tensor


def _sampling(
    offset: Tensor,
    mask: Tensor | None,
    map_hw: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    dtype: torch.dtype,
) -> Sampling:
    height, width = map_hw
    images, _, out_h, out_w = offset.shape
    taps = kernel[0] * kernel[1]
    deform_groups = offset.shape[1] // (2 * taps)
    device = offset.device

    y_grid = _grid(offset, out_h, stride[0], padding[0], kernel[0], dilation[0], dtype)[:, None, :, None]
    x_grid = _grid(offset, out_w, stride[1], padding[1], kernel[1], dilation[1], dtype)[None, :, None, :]
    shape = (out_h, out_w, *kernel)
    y_PT = y_grid.expand(shape).reshape(-1, taps)
    x_PT = x_grid.expand(shape).reshape(-1, taps)
    offset_NPTG2 = offset.to(dtype).reshape(images, deform_groups, taps, 2, -1).permute(0, 4, 2, 1, 3)
    y = y_PT[None, :, :, None] + offset_NPTG2[..., 0]
    x = x_PT[None, :, :, None] + offset_NPTG2[..., 1]

    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.floor(), x.floor()
    fraction_y, fraction_x = y - top, x - left
    # Corners outside the map read row 0 with weight 0.
    on_top, on_bottom = inside & (top >= 0), inside & (top < height - 1)
    on_left, on_right = left >= 0, left < width - 1
    weight_y = torch.stack([(1 - fraction_y) * on_top, fraction_y * on_bottom], -1)
    weight_x = torch.stack([(1 - fraction_x) * on_left, fraction_x * on_right], -1)
    slope_y = torch.stack([-on_top.to(dtype), on_bottom.to(dtype)], -1)
    slope_x = torch.stack([-on_left.to(dtype), on_right.to(dtype)], -1)

    def outer(vertical: Tensor, horizontal: Tensor) -> Tensor:
        return (vertical[..., :, None] * horizontal[..., None, :]).flatten(-2)

    row_y = torch.stack([top.clamp(min=0), (top + 1).clamp(max=height - 1)], -1).long()
    row_x = torch.stack([left.clamp(min=0), (left + 1).clamp(max=width - 1)], -1).long()
    image = torch.arange(images, device=device)[:, None, None, None, None]
    group = torch.arange(deform_groups, device=device)[:, None]
    cell = (row_y[..., :, None] * width + row_x[..., None, :]).flatten(-2)
    mask_NPTG = None
    if mask is not None:
        mask_NPTG = mask.to(dtype).reshape(images, deform_groups, taps, -1).permute(0, 3, 2, 1)
        mask_NPTG = torch.where(inside, mask_NPTG, 0)
    row = (image * (height * width) + cell) * deform_groups + group
    zero_row = images * height * width * deform_groups
    return Sampling(
        row=torch.where(inside[..., None], row, zero_row),
        bilinear=outer(weight_y, weight_x),
        d_dy=outer(slope_y, weight_x),
        d_dx=outer(weight_y, slope_x),
        mask=mask_NPTG,
        outside=~inside,
    )


def _grid(like: Tensor, out: int, step: int, pad: int, size: int, gap: int, dtype: torch.dtype) -> Tensor:
    """Return where the taps of each cell lie along one axis, (out, size), before their offsets."""
    cells = torch.arange(out, device=like.device, dtype=dtype) * step - pad
    return cells[:, None] + torch.arange(size, device=like.device, dtype=dtype) * gap


def _columns(table: Tensor, at: Sampling) -> Tensor:
    """Return the sampled, modulated input, (N,P,T,G,C/G)."""
    weights = at.bilinear if at.mask is None else at.bilinear * at.mask[..., None]
    rows = F.embedding_bag(at.row.reshape(-1, 4), table, per_sample_weights=weights.reshape(-1, 4), mode="sum")
    return rows.reshape(*at.row.shape[:-1], -1)


def _table(input: Tensor, dtype: torch.dtype, deform_groups: int) -> Tensor:
    rows = input.to(dtype).permute(0, 2, 3, 1).reshape(-1, input.shape[1] // deform_groups)
    return F.pad(rows, (0, 0, 0, 1))


def _group_matrices(weight: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """Return the weight as (groups, T*C/groups, O/groups)."""
    filters, group_channels, *kernel = weight.shape
    taps = kernel[0] * kernel[1]
    split = weight.to(dtype).reshape(groups, filters // groups, group_channels, taps)
    return split.permute(0, 3, 2, 1).reshape(groups, taps * group_channels, filters // groups)


def _by_group(columns: Tensor, groups: int) -> Tensor:
    """Return columns (N,P,T,G,C/G) as (groups, N*P, T*C/groups), the left factor of the product."""
    images, cells, taps = columns.shape[:3]
    split = columns.reshape(images * cells, taps, groups, -1)
    return split.permute(2, 0, 1, 3).reshape(groups, images * cells, -1)


def _compute_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _image_chunks(input: Tensor, offset: Tensor, dtype: torch.dtype) -> list[slice]:
    taps_cells = offset[0].numel() // 2  # G*T*P
    per_image = max(1, taps_cells * input.shape[1] * dtype.itemsize)
    step = max(1, _COLUMN_BYTES // per_image)
    return [slice(start, start + step) for start in range(0, input.shape[0], step)]


class Steps(NamedTuple):
    """The three steps that read and write rows of the map; devices may have others for them.

    `columns(table, at)` returns the sampled, modulated rows (N,P,T,G,C/G); `scatter(grad_samples, at, rows)` the
    gradient of the table, (rows,C/G); `dots(grad_samples, table, at)` the products of each sample's gradient with
    its four rows, (N,P,T,G,4).
    """

    columns: Callable[[Tensor, Sampling], Tensor]
    scatter: Callable[[Tensor, Sampling, int], Tensor]
    dots: Callable[[Tensor, Tensor, Sampling], Tensor]


def forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    steps: Steps | None = None,
) -> Tensor:
    """Return the convolution by the reference: what a device without a kernel of its own runs."""
    steps = steps or _STEPS
    output = output_like(input, offset, weight)
    if output.numel() == 0:
        return output
    dtype = _compute_dtype(input)
    groups = input.shape[1] // weight.shape[1]
    kernel = (weight.shape[2], weight.shape[3])
    deform_groups = offset.shape[1] // (2 * kernel[0] * kernel[1])
    matrices = _group_matrices(weight, groups, dtype)
    for images in _image_chunks(input, offset, dtype):
        chunk_mask = None if mask is None else mask[images]
        at = _sampling(offset[images], chunk_mask, _hw(input), kernel, _pt(stride), _pt(padding), _pt(dilation), dtype)
        columns = _by_group(steps.columns(_table(input[images], dtype, deform_groups), at), groups)
        product = torch.bmm(columns, matrices).permute(1, 0, 2).reshape(-1, weight.shape[0])
        if bias is not None:
            product = product + bias.to(dtype)
        target = output[images].permute(0, 2, 3, 1)
        target.copy_(product.reshape(target.shape))
    return output


def backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    steps: Steps | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, offset, weight and mask by the reference."""
    steps = steps or _STEPS
    grads = grads_like(input, offset, weight, mask)
    grad_input, grad_offset, grad_weight, grad_mask = grads
    if grad_output.numel() == 0 or input.numel() == 0:
        for grad in grads:
            grad.zero_()
        return grads
    dtype = _compute_dtype(input)
    groups = input.shape[1] // weight.shape[1]
    kernel = (weight.shape[2], weight.shape[3])
    taps = kernel[0] * kernel[1]
    deform_groups = offset.shape[1] // (2 * taps)
    matrices = _group_matrices(weight, groups, dtype)
    grad_matrices = torch.zeros_like(matrices)
    for images in _image_chunks(input, offset, dtype):
        chunk_mask = None if mask is None else mask[images]
        at = _sampling(offset[images], chunk_mask, _hw(input), kernel, _pt(stride), _pt(padding), _pt(dilation), dtype)
        table = _table(input[images], dtype, deform_groups)
        grad_rows = grad_output[images].to(dtype).permute(0, 2, 3, 1).reshape(-1, groups, matrices.shape[2])
        grad_rows = grad_rows.permute(1, 0, 2)
        columns = steps.columns(table, at)
        grad_matrices += torch.bmm(_by_group(columns, groups).transpose(1, 2), grad_rows)
        grad_columns = torch.bmm(grad_rows, matrices.transpose(1, 2))
        # back from (groups, N*P, T*C/groups) to the samples' order (N,P,T,G,C/G)
        split = grad_columns.reshape(groups, -1, taps, weight.shape[1]).permute(1, 2, 0, 3)
        grad_samples = split.reshape(-1, table.shape[1])
        grad_table = steps.scatter(grad_samples, at, table.shape[0])
        grad_nhwc = grad_input[images].permute(0, 2, 3, 1)
        grad_nhwc.copy_(grad_table[:-1].reshape(grad_nhwc.shape))
        _offset_gradients(steps.dots(grad_samples, table, at), at, grad_offset[images], grad_mask[images])
    unsplit = grad_matrices.reshape(groups, taps, weight.shape[1], -1).permute(0, 3, 2, 1)
    grad_weight.copy_(unsplit.reshape(weight.shape))
    return grads


def _scatter_rows(grad_samples: Tensor, at: Sampling, rows: int) -> Tensor:
    """Return the gradient of the table, (rows, C/G): sampling transposed.

    Sorted by table row the scatter is again a weighted sum of rows, which unlike `index_add_` runs in parallel and
    adds in a fixed order.
    """
    weights = at.bilinear if at.mask is None else at.bilinear * at.mask[..., None]
    row = at.row.reshape(-1)
    order = torch.argsort(row, stable=True)
    counts = torch.bincount(row, minlength=rows)
    starts = counts.cumsum(0) - counts
    return F.embedding_bag(order // 4, grad_samples, starts, per_sample_weights=weights.reshape(-1)[order], mode="sum")


def _corner_dots(grad_samples: Tensor, table: Tensor, at: Sampling) -> Tensor:
    row = at.row.reshape(-1, 4)
    corner = torch.empty(row.shape, dtype=table.dtype, device=table.device)
    for start in range(0, len(row), _DOT_ROWS):
        part = slice(start, start + _DOT_ROWS)
        rows = table.index_select(0, row[part].reshape(-1)).reshape(-1, 4, table.shape[1])
        corner[part] = torch.bmm(rows, grad_samples[part].unsqueeze(2)).squeeze(2)
    return corner.reshape(at.row.shape)


_STEPS = Steps(_columns, _scatter_rows, _corner_dots)


def _offset_gradients(corner: Tensor, at: Sampling, grad_offset: Tensor, grad_mask: Tensor) -> None:
    """Write the gradients of offset (N,2*G*T,Ho,Wo) and, when it has elements, of mask (N,G*T,Ho,Wo)."""
    slope = torch.stack([(corner * at.d_dy).sum(-1), (corner * at.d_dx).sum(-1)], -1)
    slope = slope.masked_fill(at.outside[..., None], 0)
    if at.mask is not None:
        slope = slope * at.mask[..., None]
        by_mask = (corner * at.bilinear).sum(-1).masked_fill(at.outside, 0)
        grad_mask.copy_(by_mask.permute(0, 3, 2, 1).reshape(grad_mask.shape))
    grad_offset.copy_(slope.permute(0, 3, 2, 4, 1).reshape(grad_offset.shape))


def _hw(input: Tensor) -> Pair:
    return input.shape[2], input.shape[3]


def _pt(values: list[int]) -> Pair:
    return values[0], values[1]


def output_like(input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Return the unfilled result, (N,O,Ho,Wo), stored channels-last."""
    shape = (input.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


def grads_like(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return unfilled gradients, the weight's stored as the weight is; without a mask its gradient is (N,0)."""
    contiguous = torch.contiguous_format
    return (
        torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last),
        torch.empty_like(offset, memory_format=contiguous),
        torch.empty_like(weight),
        offset.new_empty((offset.shape[0], 0)) if mask is None else torch.empty_like(mask, memory_format=contiguous),
    )
