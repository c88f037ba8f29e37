"""Deformable convolution by the compiled kernels.

Forward they sample a tile of columns and multiply it by the weight. On the way back torch multiplies. A tile is small
enough to stay in a core's cache between the two, so the columns of a whole map never exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, DeformShape, library, pointer, strides
from ctnet.ops import deform_conv as reference

_TILE_BYTES = 4 << 20
_LARGEST_MAP = 2**31 - 1  # pixels, which the kernels count in 32 bits


class _Problem(NamedTuple):
    """A call's tensors in the forms that the kernels take."""

    shape: DeformShape
    map: Tensor  # (N,C,H,W) stored NHWC
    offset: Tensor
    mask: Tensor | None

    @property
    def cells(self) -> int:
        return self.offset.shape[0] * self.area

    @property
    def area(self) -> int:
        return self.offset.shape[2] * self.offset.shape[3]

    @property
    def column_length(self) -> int:
        return int(self.shape.kernel_h * self.shape.kernel_w * self.shape.channels)

    @property
    def tile(self) -> int:
        """Cells whose columns fit into a tile."""
        return max(16, min(self.cells, _TILE_BYTES // (self.column_length * self.map.element_size())))

    def sample(self, first: int, columns: Tensor) -> None:
        """Fill the rows of `columns` with the samples of as many cells from `first` on."""
        library().ctnet_deform_columns(
            self.shape,
            TYPES[self.map.dtype],
            pointer(self.map),
            TYPES[self.offset.dtype],
            pointer(self.offset),
            pointer(self.mask),
            first,
            len(columns),
            pointer(columns),
            torch.get_num_threads(),
        )


def _supported(input: Tensor) -> bool:
    return input.dtype in TYPES and input.numel() > 0 and input.shape[2] * input.shape[3] <= _LARGEST_MAP


def _problem(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int],
) -> _Problem:  # fmt: skip
    side = offset.dtype if mask is None or mask.dtype == offset.dtype else None
    if input.dtype != torch.bfloat16 or side not in (torch.bfloat16, torch.float32):
        side = torch.float64 if input.dtype == torch.float64 else torch.float32
    offset = offset.to(side)
    mask = None if mask is None else mask.to(side)
    kernel = weight.shape[2:]
    shape = DeformShape(
        *input.shape,
        *offset.shape[2:],
        *kernel,
        *stride,
        *padding,
        *dilation,
        input.shape[1] // weight.shape[1],
        offset.shape[1] // (2 * kernel[0] * kernel[1]),
        strides(offset),
        strides(offset if mask is None else mask),
    )
    return _Problem(shape, input.contiguous(memory_format=torch.channels_last), offset, mask)


def _matrices(weight: Tensor, groups: int) -> list[Tensor]:
    """Return per group the weight as (T*C/groups, O/groups); a view where the weight is stored channels-last."""
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return [part.permute(2, 3, 1, 0).reshape(-1, part.shape[0]) for part in by_group]


def _rows(tensor: Tensor) -> Tensor:
    """Return a channels-last (N,C,H,W) tensor as rows of channels, (N*H*W,C), sharing its memory."""
    return tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])


def _by_group(columns: Tensor, rows: Tensor, matrices: list[Tensor]) -> Iterator[tuple[Tensor, slice, slice]]:
    """Yield for each group its matrix, its part of the columns and its part of the filters."""
    groups = len(matrices)
    for i, matrix in enumerate(matrices):
        yield matrix, _part(columns.shape[1], i, groups), _part(rows.shape[1], i, groups)


def _part(length: int, i: int, parts: int) -> slice:
    return slice(i * length // parts, (i + 1) * length // parts)


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
    """Return what the reference returns."""
    if not _supported(input):
        return reference.forward(input, offset, weight, bias, mask, stride, padding, dilation)
    output = reference.output_like(input, offset, weight)
    if output.numel() == 0:
        return output
    problem = _problem(input, offset, weight, mask, stride, padding, dilation)
    weight = weight.to(input.dtype)
    bias = None if bias is None else bias.to(input.dtype).contiguous()
    library().ctnet_deform_conv(
        problem.shape,
        TYPES[input.dtype],
        pointer(problem.map),
        TYPES[problem.offset.dtype],
        pointer(problem.offset),
        pointer(problem.mask),
        pointer(weight),
        strides(weight),
        pointer(bias),
        len(weight),
        pointer(output),
        torch.get_num_threads(),
    )
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the reference returns.

    Sums are taken in float32 (float64 for float64) in an order that depends on nothing but shapes and the number of
    threads.
    """
    if not _supported(input) or grad_output.numel() == 0:
        return reference.backward(grad_output, input, offset, weight, mask, stride, padding, dilation)
    grads = reference.grads_like(input, offset, weight, mask)
    grad_input, grad_offset, grad_weight, grad_mask = grads
    matrices = _matrices(weight, input.shape[1] // weight.shape[1])
    sums = torch.float64 if input.dtype == torch.float64 else torch.float32
    # a filter's gradient lies as its columns do: (O/groups,T*C/groups)
    grad_matrices = [matrix.new_zeros(matrix.shape[::-1], dtype=sums) for matrix in matrices]
    grad_output = grad_output.to(input.dtype)
    column_bytes = weight[0, 0].numel() * input.shape[1] * input.element_size()
    step = max(1, _TILE_BYTES // (column_bytes * offset.shape[2] * offset.shape[3]))
    for start in range(0, len(input), step):
        part = slice(start, start + step)
        part_mask = None if mask is None else mask[part]
        problem = _problem(input[part], offset[part], weight, part_mask, stride, padding, dilation)
        side = (grad_offset[part], None if mask is None else grad_mask[part])
        grad_rows = _rows(grad_output[part].contiguous(memory_format=torch.channels_last))
        grad_input[part] = _backward_part(problem, grad_rows, matrices, grad_matrices, *side)
    by_tap = torch.cat(grad_matrices) if len(grad_matrices) > 1 else grad_matrices[0]
    grad_weight.copy_(by_tap.reshape(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2))
    return grads


def _backward_part(
    problem: _Problem,
    grad_rows: Tensor,
    matrices: list[Tensor],
    grad_matrices: list[Tensor],
    grad_offset: Tensor,
    grad_mask: Tensor | None,
) -> Tensor:
    """Return the map's gradient in the type of sums, add to the matrices' and write the offset's and the mask's."""
    grad_map = torch.zeros_like(problem.map, dtype=grad_matrices[0].dtype)
    # the sampling kernels' types; gradients of other types are converted at the end
    offset_sums = grad_offset if grad_offset.dtype == problem.offset.dtype else torch.empty_like(problem.offset)
    mask_sums = grad_mask
    if grad_mask is not None and grad_mask.dtype != problem.offset.dtype:
        mask_sums = torch.empty_like(grad_mask, dtype=problem.offset.dtype)
    grad_shape = DeformShape(
        offset_stride=strides(offset_sums),
        mask_stride=strides(offset_sums if mask_sums is None else mask_sums),
    )
    threads, kernels = torch.get_num_threads(), library()
    number = TYPES[problem.map.dtype]
    buffer = problem.map.new_empty(problem.tile, problem.column_length)
    scratch = torch.empty(kernels.ctnet_deform_scratch(problem.shape, number, problem.tile, threads), dtype=torch.uint8)
    for first in range(0, problem.cells, problem.tile):
        grad_tile = grad_rows[first : first + problem.tile]
        columns = buffer[: len(grad_tile)]
        problem.sample(first, columns)
        for grad_matrix, sources, filters in _by_group(columns, grad_tile, grad_matrices):
            _add_product(grad_matrix, grad_tile[:, filters].t(), columns[:, sources])
        for matrix, sources, filters in _by_group(columns, grad_tile, matrices):
            _multiply_into(columns[:, sources], grad_tile[:, filters], matrix.t())
        kernels.ctnet_deform_scatter(
            problem.shape,
            number,
            pointer(problem.map),
            TYPES[problem.offset.dtype],
            pointer(problem.offset),
            pointer(problem.mask),
            first,
            len(columns),
            pointer(columns),
            grad_shape,
            pointer(grad_map),
            pointer(offset_sums),
            pointer(mask_sums),
            pointer(scratch),
            threads,
        )
    if offset_sums is not grad_offset:
        grad_offset.copy_(offset_sums)
    if grad_mask is not None and mask_sums is not None and mask_sums is not grad_mask:
        grad_mask.copy_(mask_sums)
    return grad_map


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`, which may be of a wider type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _multiply_into(target: Tensor, left: Tensor, right: Tensor) -> None:
    if target.is_contiguous():
        torch.mm(left, right, out=target)
    else:
        target.copy_(left @ right)
