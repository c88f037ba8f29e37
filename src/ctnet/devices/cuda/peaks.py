"""Peaks of heatmaps in Triton: the map is read once for the best peak of each tile, then the best tiles again.

An image's k strongest peaks lie in the k tiles whose strongest peaks are strongest. So nothing of the map's size is
written, and top-k sees one number a tile. Sizes depend on shapes alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.ops.peaks import reference_peaks

_TILE = 512
_NO_PEAK = -(2**63)
_LARGEST = 2**31 - 2**16  # cells of all classes of an image, which are counted in 32 bits


def decode_peaks(heatmap_logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference returns."""
    images, classes, height, width = heatmap_logits.shape
    numbers = classes * height * width
    if images * numbers == 0 or numbers > _LARGEST or heatmap_logits.dtype == torch.float64:
        return reference_peaks(heatmap_logits, top_k)
    tiles = triton.cdiv(numbers, _TILE)
    chosen = min(top_k, tiles)
    best = torch.empty((images, tiles), dtype=torch.int64, device=heatmap_logits.device)
    keys = torch.empty((images, chosen * _TILE), dtype=torch.int64, device=heatmap_logits.device)
    given = {
        **dict(zip(("stride_n", "stride_c", "stride_h", "stride_w"), heatmap_logits.stride(), strict=True)),
        "classes": classes, "height": height, "width": width,
        # tiles follow memory, whichever way it runs
        "BY_CELL": heatmap_logits.stride(1) < heatmap_logits.stride(3),
        "TILE": _TILE, "NO_PEAK": _NO_PEAK, "num_warps": 4, "enable_fp_fusion": True,
    }  # fmt: skip
    with torch.cuda.device_of(heatmap_logits):
        _best_of_tiles[(images * tiles,)](heatmap_logits, best, tiles, **given)
        _keys_of_tiles[(images * chosen,)](heatmap_logits, best.topk(chosen).indices, keys, chosen, **given)
    return _peaks(keys, top_k, height * width)


def _peaks(keys: Tensor, top_k: int, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, labels and cells (B,K) from the keys of candidates."""
    key = keys.topk(min(top_k, keys.shape[1])).values
    ordered = (key >> 32).int()
    logits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32)
    scores = torch.where(key != _NO_PEAK, logits, -torch.inf).sigmoid()
    index = torch.where(scores > 0, 0xFFFFFFFF - (key & 0xFFFFFFFF), 0)  # a score that rounds to zero is no peak
    labels = index.div(cells, rounding_mode="floor")
    missing = (0, top_k - scores.shape[1])
    pad = torch.nn.functional.pad
    return pad(scores, missing), pad(labels, missing), pad(index - labels * cells, missing)


@triton.jit
def _best_of_tiles(
    heatmap, best, tiles, stride_n, stride_c, stride_h, stride_w, classes, height, width,
    BY_CELL: tl.constexpr, TILE: tl.constexpr, NO_PEAK: tl.constexpr,
):  # fmt: skip
    """Write the largest key of a tile."""
    image, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    map = heatmap + image.to(tl.int64) * stride_n
    keys = _tile_keys(map, tile, stride_c, stride_h, stride_w, classes, height, width, BY_CELL, TILE, NO_PEAK)
    tl.store(best + tl.program_id(0), tl.max(keys, 0))


@triton.jit
def _keys_of_tiles(
    heatmap, chosen, keys, count, stride_n, stride_c, stride_h, stride_w, classes, height, width,
    BY_CELL: tl.constexpr, TILE: tl.constexpr, NO_PEAK: tl.constexpr,
):  # fmt: skip
    """Write all keys of a chosen tile."""
    tile = tl.load(chosen + tl.program_id(0)).to(tl.int32)
    map = heatmap + (tl.program_id(0) // count).to(tl.int64) * stride_n
    found = _tile_keys(map, tile, stride_c, stride_h, stride_w, classes, height, width, BY_CELL, TILE, NO_PEAK)
    tl.store(keys + tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE), found)


@triton.jit
def _tile_keys(
    map, tile, stride_c, stride_h, stride_w, classes, height, width,
    BY_CELL: tl.constexpr, TILE: tl.constexpr, NO_PEAK: tl.constexpr,
):  # fmt: skip
    """Return keys (TILE,) int64 that order peaks by logit, then by falling index; NO_PEAK where there is none.

    A float's bits are an integer that sorts like the float once those of negative ones are turned over.
    """
    place = tile * TILE + tl.arange(0, TILE)
    exists = place < classes * height * width
    if BY_CELL:
        label, cell = place % classes, place // classes
    else:
        label, cell = place // (height * width), place % (height * width)
    row, column = cell // width, cell % width
    plane = map + label.to(tl.int64) * stride_c
    logit = _logits(plane, row, column, exists, stride_h, stride_w, height, width)
    is_peak = exists
    for step in tl.static_range(9):  # includes the cell, which compares below itself only if it is NaN
        beside = _logits(plane, row + step // 3 - 1, column + step % 3 - 1, exists, stride_h, stride_w, height, width)
        is_peak = is_peak & (logit >= beside)
    bits = tl.where(logit == 0, 0.0, logit).to(tl.int32, bitcast=True)  # -0.0 becomes 0.0
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    index = (label * (height * width) + cell).to(tl.int64)
    return tl.where(is_peak, (ordered + 1) * 4294967296 - 1 - index, NO_PEAK)


@triton.jit
def _logits(plane, row, column, exists, stride_h, stride_w, height, width):
    """Return a neighbour's logit (TILE,) float32; outside the map it is below any other."""
    there = exists & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at = plane + row.to(tl.int64) * stride_h + column * stride_w
    return tl.load(at, mask=there, other=float("-inf")).to(tl.float32)
