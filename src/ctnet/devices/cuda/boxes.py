"""Greedy NMS of boxes in Triton, in float64 as the reference measures it.

One kernel writes who overlaps whom as bits, another walks the boxes once, strongest first. The host learns nothing but
how many are kept, which is the size of the result.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.ops.nms import strongest_first, within_limit

_BITS = 32


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return what the reference returns."""
    order = strongest_first(scores)
    count = len(order)
    words = triton.cdiv(count, _BITS)
    if count == 0:
        return order
    overlaps = torch.empty((words * _BITS, words), dtype=torch.int32, device=boxes.device)
    removed = torch.empty(words, dtype=torch.int32, device=boxes.device)
    sorted_boxes, sorted_labels = boxes[order].double(), labels[order]
    # a number among the arguments would be rounded to float32
    threshold = torch.full((1,), iou_threshold, dtype=torch.float64, device=boxes.device)
    with torch.cuda.device_of(boxes):
        _overlaps[(words, words)](
            sorted_boxes, sorted_labels, threshold, overlaps, count, words,
            EXTRA=int(plus_one), BITS=_BITS, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        _walk[(1,)](
            overlaps, removed, words,
            WORDS=triton.next_power_of_2(words), BITS=_BITS, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
    bits = torch.arange(_BITS, dtype=torch.int32, device=boxes.device)
    kept = order[((removed[:, None] >> bits) & 1).flatten()[:count] == 0]
    return within_limit(kept, scores, labels, limit)


@triton.jit
def _overlaps(
    boxes, labels, threshold, overlaps, count, words, EXTRA: tl.constexpr, BITS: tl.constexpr
):  # fmt: skip
    """Write for BITS boxes a word each: which of BITS others, weaker and of the same label, they overlap too much."""
    strong = tl.program_id(0) * BITS + tl.arange(0, BITS)
    weak = tl.program_id(1) * BITS + tl.arange(0, BITS)
    left, top, right, bottom, area, label = _sides(boxes, labels, strong, count, EXTRA)
    left_2, top_2, right_2, bottom_2, area_2, label_2 = _sides(boxes, labels, weak, count, EXTRA)
    across = tl.minimum(right[:, None], right_2[None, :]) - tl.maximum(left[:, None], left_2[None, :]) + EXTRA
    down = tl.minimum(bottom[:, None], bottom_2[None, :]) - tl.maximum(top[:, None], top_2[None, :]) + EXTRA
    both = tl.where(across > 0, across, 0.0) * tl.where(down > 0, down, 0.0)
    # NaN makes the union NaN, which is no overlap
    union = area_2[None, :] + area[:, None] - both
    iou = tl.where(union > 0, both / union, 0.0)
    pairs = (weak[None, :] > strong[:, None]) & (weak < count)[None, :] & (label[:, None] == label_2[None, :])
    bits = tl.full([BITS], 1, tl.int32) << tl.arange(0, BITS)
    word = tl.sum(tl.where(pairs & (iou > tl.load(threshold)), bits[None, :], 0), 1)
    tl.store(overlaps + strong.to(tl.int64) * words + tl.program_id(1), word)


@triton.jit
def _sides(boxes, labels, box, count, EXTRA: tl.constexpr):
    """Return left, top, right, bottom, area (float64) and label of some boxes."""
    exists = box < count
    at = boxes + box * 4
    left, top = tl.load(at, mask=exists, other=0.0), tl.load(at + 1, mask=exists, other=0.0)
    right, bottom = tl.load(at + 2, mask=exists, other=0.0), tl.load(at + 3, mask=exists, other=0.0)
    area = (right - left + EXTRA) * (bottom - top + EXTRA)
    return left, top, right, bottom, area, tl.load(labels + box, mask=exists, other=0)


@triton.jit
def _walk(overlaps, removed, words, WORDS: tl.constexpr, BITS: tl.constexpr):
    """Write the bits of the boxes that a stronger kept one removes."""
    place = tl.arange(0, WORDS)
    exists = place < words
    gone = tl.zeros([WORDS], tl.int32)
    row = overlaps
    for word in range(words):
        here = tl.sum(tl.where(place == word, gone, 0), 0)
        for bit in range(BITS):
            kept = ((here >> bit) & 1) == 0
            here = tl.where(kept, here | tl.load(row + word), here)
            gone = tl.where(kept, gone | tl.load(row + place, mask=exists, other=0), gone)
            row += words
    tl.store(removed + place, gone, mask=exists)
