"""RoIAlign in plain torch, from boxes in pixels to bins and back: what every kernel has to equal.

Shape letters: B image, C channel, H W map of a level, R box, P side of the result, T corner of a sample along one axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_FARTHEST = 2.0**20
"""cells from a map's corner up to which float32 places samples"""
_AT_ONCE = 1 << 20
"""products of a corner and its weight that the reference lists at a time"""


def geometry(
    rois: Tensor, batch_index: Tensor, level: Tensor, images: int, strides: Sequence[float], size: int, ratio: int,
    aligned: bool,
) -> Tensor:  # fmt: skip
    """Return (R,6): begin of the first bin, side of a bin in cells, samples a bin; of each first y, then x.

    Boxes that give zeros have no samples. The type is float32, or float64 of boxes in float64; which samples a bin has
    depends on how it rounds, so that every implementation starts from these numbers.
    """
    known = (level >= 0) & (level < len(strides)) & (batch_index >= 0) & (batch_index < images)
    scales = torch.tensor([1 / stride for stride in strides], dtype=rois.dtype, device=rois.device)
    edges = rois * scales[torch.where(known, level, 0)][:, None]
    if aligned:
        edges = edges - 0.5
    begin, end = edges[:, [1, 0]], edges[:, [3, 2]]
    extent = end - begin if aligned else (end - begin).clamp(min=1)
    bins = extent / size
    samples = torch.full_like(bins, ratio) if ratio else bins.ceil().clamp(min=0)
    usable = known & (edges.abs() <= _FARTHEST).all(1)
    return torch.where(usable[:, None], torch.cat([begin, bins, samples], 1), 0)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type of positions, weights and sums for maps of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Corners(NamedTuple):
    """Corners of samples along one axis, box after box and bin after bin."""

    cells: Tensor  # (T,)
    weights: Tensor  # (T,)
    first: Tensor  # (R*P,), of each bin
    counts: Tensor  # (R*P,)


def _within(count: Tensor) -> tuple[Tensor, Tensor]:
    """Return for `count` (R,) things of each of R owners the owner and the place within it, one after the other."""
    owner = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    return owner, torch.arange(len(owner), device=count.device) - (count.cumsum(0) - count)[owner]


def _corners(begin: Tensor, bins: Tensor, samples: Tensor, side: Tensor, size: int) -> _Corners:
    """Return the corners of all samples within a cell of maps with `side` (R,) cells, two a sample."""
    # of boxes much larger than the map, only the samples about the map are looked at
    spacing = bins / samples.clamp(min=1)
    first, last = torch.zeros_like(begin), samples * size
    cut = spacing > 0
    first = torch.where(cut, ((-1 - begin) / spacing - 3).floor().clamp(min=0), first)
    last = torch.where(cut, torch.minimum(((side - begin) / spacing + 3).ceil(), last), last)
    box, place = _within((last - first).clamp(min=0).long())
    number, per_bin = place + first[box].long(), samples[box].long().clamp(min=1)
    bin = number // per_bin
    at = begin[box] + bin * bins[box] + (number % per_bin + 0.5) * bins[box] / samples[box]
    inside = (at >= -1) & (at <= side[box])
    box, bin, at = box[inside], bin[inside], at[inside].clamp(min=0)
    end = side[box] - 1
    low = torch.minimum(at.floor().long(), end)
    part = torch.where(low < end, at - low, 0)
    weights = torch.stack([1 - part, part], 1) / samples[box][:, None]
    cells = torch.stack([low, torch.minimum(low + 1, end)], 1)
    count = 2 * _counts(box * size + bin, len(begin) * size)
    return _Corners(cells.flatten(), weights.flatten(), count.cumsum(0) - count, count)


def _counts(indices: Tensor, length: int) -> Tensor:
    """Return how often each of 0 .. `length` - 1 occurs, as `torch.bincount` does, which some devices lack."""
    return indices.new_zeros(length).index_add_(0, indices, torch.ones_like(indices))


class _Products(NamedTuple):
    """Products of a corner and its weight: those of bins `first` .. `first + len(counts) - 1` of (R,P,P), in order."""

    first: int
    counts: Tensor  # of each bin
    cells: Tensor  # flat index into the cells of all levels
    weights: Tensor


def _products(
    boxes: Tensor, batch_index: Tensor, level: Tensor, images: int, sides: Sequence[tuple[int, int]], size: int
) -> Iterator[_Products]:
    """Yield all products in parts of a bounded size."""
    of_level = torch.tensor(sides, device=boxes.device)
    starts = images * (of_level.prod(1).cumsum(0) - of_level.prod(1))
    at = level.clamp(0, len(sides) - 1)
    height, width = of_level[at].unbind(1)
    origin = starts[at] + batch_index.clamp(0, max(images - 1, 0)) * height * width
    # no sample along one axis is none at all
    samples = torch.where((boxes[:, 4:] > 0).all(1, keepdim=True), boxes[:, 4:], 0)
    y, x = (_corners(boxes[:, i], boxes[:, 2 + i], samples[:, i], (height, width)[i], size) for i in (0, 1))
    count = y.counts.view(-1, size, 1) * x.counts.view(-1, 1, size)
    ends = count.flatten().cumsum(0)
    most = max(_AT_ONCE, int(ends[-1:].sum()))
    cuts = torch.searchsorted(ends, torch.arange(_AT_ONCE, most, _AT_ONCE, device=ends.device))
    first = 0
    for counts in count.flatten().tensor_split(cuts.cpu()):
        bin, place = _within(counts)
        bin += first
        row, column = bin // size, bin // size**2 * size + bin % size
        i, j = y.first[row] + place // x.counts[column], x.first[column] + place % x.counts[column]
        box = bin // size**2
        yield _Products(first, counts, origin[box] + y.cells[i] * width[box] + x.cells[j], y.weights[i] * x.weights[j])
        first += len(counts)


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, count: Tensor) -> Tensor:
    """Return (N,C): of each of N the sum of `count` (N,) rows of a table (M,C), one after the other, by weights."""
    return F.embedding_bag(rows, table, count.cumsum(0) - count, mode="sum", per_sample_weights=weights)


def forward(
    levels: list[Tensor], rois: Tensor, batch_index: Tensor, level: Tensor, strides: list[float], output_size: int,
    sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """Return the bins by the reference: each corner of a sample times its weight, added up."""
    images, channels = levels[0].shape[:2]
    if min(images, channels, len(rois)) == 0:
        return output_like(levels, rois, output_size).zero_()
    kind = wide(levels[0].dtype)
    boxes = geometry(rois.to(kind), batch_index, level, images, strides, output_size, sampling_ratio, aligned)
    sums = torch.zeros(len(rois) * output_size**2, channels, dtype=kind, device=rois.device)
    sides = [(map.shape[2], map.shape[3]) for map in levels]
    cells = torch.cat([map.permute(0, 2, 3, 1).flatten(0, 2) for map in levels]).to(kind)
    for part in _products(boxes, batch_index, level, images, sides, output_size):
        bins = slice(part.first, part.first + len(part.counts))
        sums[bins] = _weighted_sums(cells, part.cells, part.weights, part.counts)
    result = sums.to(levels[0].dtype).view(len(rois), output_size, output_size, channels)
    return result.permute(0, 3, 1, 2).contiguous()


def backward(
    grad_output: Tensor, rois: Tensor, batch_index: Tensor, level: Tensor, images: int, sides: list[int],
    strides: list[float], sampling_ratio: int, aligned: bool,
) -> list[Tensor]:  # fmt: skip
    """Return the gradients of the levels by the reference; `sides` are height and width of one after the other."""
    grads = grads_like(grad_output, images, sides, grad_output.dtype)
    channels, size = grad_output.shape[1:3]
    if min(images, channels, len(rois)) == 0:
        return [grad.zero_() for grad in grads]
    kind = wide(grad_output.dtype)
    boxes = geometry(rois.to(kind), batch_index, level, images, strides, size, sampling_ratio, aligned)
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    counts = [images * height * width for height, width in pairs]
    sums = torch.zeros(sum(counts), channels, dtype=kind, device=rois.device)
    bins = grad_output.permute(0, 2, 3, 1).flatten(0, 2).to(kind)
    for part in _products(boxes, batch_index, level, images, pairs, size):
        order = part.cells.argsort(stable=True)
        rows = part.first + torch.repeat_interleave(part.counts)
        count = _counts(part.cells, len(sums))
        sums += _weighted_sums(bins, rows[order], part.weights[order], count)
    for grad, rows, pair in zip(grads, torch.split(sums, counts), pairs, strict=True):
        grad.copy_(rows.view(images, *pair, channels).permute(0, 3, 1, 2))
    return grads


def output_like(levels: Sequence[Tensor], rois: Tensor, size: int) -> Tensor:
    """Return the unfilled result."""
    return levels[0].new_empty(rois.shape[0], levels[0].shape[1], size, size)


def grads_like(grad_output: Tensor, images: int, sides: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """Return unfilled gradients of the levels, stored channels-last."""
    return [
        torch.empty(
            (images, grad_output.shape[1], height, width), dtype=dtype, device=grad_output.device,
            memory_format=torch.channels_last,
        )
        for height, width in zip(sides[::2], sides[1::2], strict=True)
    ]  # fmt: skip
