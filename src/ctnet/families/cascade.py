"""Second stages over proposals: pooling, refinement, and what they are taught (Cai and Vasconcelos, 2018).

Shape letters: B images, K boxes of each, N objects of each, C classes. Boxes that an image does not have are masked,
so shapes depend on settings alone and no number is moved to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.codec.boxes import (
    clip_boxes,
    correct_boxes,
    correction_weights,
    encode_corrections,
    have_area,
    pairwise_iou,
    pooling_level,
)
from ctnet.families.found import Found
from ctnet.ops import roi_align

Autocast = Callable[[], AbstractContextManager[object]]


class Matched(NamedTuple):
    """Boxes (B,K,4), which of them exist (B,K), labels (B,K), C for background, and the object (B,K,4) of each."""

    boxes: Tensor
    exists: Tensor
    labels: Tensor
    objects: Tensor

    def take(self, index: Tensor) -> Matched:
        """Return the boxes of indices (B,J)."""
        four = index.unsqueeze(-1).expand(-1, -1, 4)
        exists, labels = self.exists.gather(1, index), self.labels.gather(1, index)
        return Matched(self.boxes.gather(1, four), exists, labels, self.objects.gather(1, four))


class StageLoss(NamedTuple):
    """Sums over the boxes of a stage: cross-entropy, L1 of corrections, and the number of boxes."""

    classes: Tensor
    box: Tensor
    boxes: Tensor


class _ScaleGradient(torch.autograd.Function):
    """The identity; its gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return the tensor."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the scaled gradient."""
        return gradient * ctx.factor, None


def pool(levels: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, size: int) -> Tensor:
    """Return the features (B*K,C,size,size) of boxes (B,K,4), each from the level that suits its area."""
    images, count = boxes.shape[:2]
    batch_index = torch.arange(images, device=boxes.device)[:, None].expand(-1, count).flatten()
    level = pooling_level(boxes, len(levels)).flatten()
    return roi_align(levels, boxes.reshape(-1, 4), batch_index, level, strides, size, 0)


def refine(
    stages: Iterable[nn.Module], pooled: Callable[[Tensor], Tensor], found: Found, image_hw: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the boxes (B,K,4) after all stages, clipped, and their scores (B,K,C).

    The score of a class is the root of its mean probability over the stages times the proposal's score.
    """
    boxes, probabilities = found.boxes, []
    for number, stage in enumerate(stages):
        boxes = clip_boxes(boxes, image_hw) if number else boxes
        logits, corrections = stage(pooled(boxes))
        probabilities.append(logits.float().softmax(-1)[:, :-1])
        boxes = correct_boxes(boxes, corrections.float().view_as(boxes), correction_weights(number))
    mean = torch.stack(probabilities).sum(0) * (1 / len(probabilities))
    scores = (mean.view(*boxes.shape[:2], -1) * found.scores.unsqueeze(-1)).sqrt()
    return clip_boxes(boxes, image_hw), scores


def match(
    boxes: Tensor, exists: Tensor, objects: Tensor, labels: Tensor, valid: Tensor, iou: float, classes: int
) -> Matched:
    """Return each box with the object (B,N,4) that it overlaps most, background where the overlap is below `iou`."""
    overlap = torch.where(valid.unsqueeze(-1), pairwise_iou(objects, boxes), -1)
    best, which = overlap.max(1)
    is_object = (best >= iou) & exists
    found = objects.gather(1, which.unsqueeze(-1).expand(-1, -1, 4))
    return Matched(boxes, exists, torch.where(is_object, labels.gather(1, which), classes), found)


def sample(matched: Matched, count: int, positives: float, classes: int) -> Matched:
    """Return at most `count` boxes of each image, at most that part of them objects, these first, drawn by `draw`."""
    is_object = (matched.labels < classes) & matched.exists
    rank = draw(matched.boxes) + torch.where(is_object, 0, torch.where(matched.exists, 1, 2))
    order = rank.argsort(dim=1, stable=True)
    objects = is_object.sum(1, keepdim=True)
    taken = objects.clamp(max=int(count * positives))
    place = torch.arange(count, device=order.device)
    place = torch.where(place < taken, place, place - taken + objects)
    inside = place < order.shape[1]
    chosen = matched.take(order.gather(1, place.clamp(max=order.shape[1] - 1)))
    return chosen._replace(exists=chosen.exists & inside)


def draw(boxes: Tensor) -> Tensor:
    """Return numbers (B,K) in 0..1, as if random, that order the boxes of an image.

    They are a hash of each box and the first one, in whole pixels, not a generator's: so neither padding nor rounding
    nor the number of ranks nor an interruption changes which boxes are drawn.
    """
    bits = boxes.detach().nan_to_num().clamp(-1e6, 1e6).round().long()
    mixed = (bits * bits.new_tensor([73_856_093, 19_349_663, 83_492_791, 50_331_653])).sum(-1)
    mixed = mixed ^ (mixed[:, :1] * 2_654_435_761)
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 31)) * 0x2545_F491_4F6C_DD1D
    return ((mixed >> 24) & 0xFF_FFFF).float() / (1 << 24)


def teach(
    stages: Sequence[nn.Module], pooled: Callable[[Tensor], Tensor], matched: Matched,
    match_again: Callable[[Tensor, Tensor, int], Matched], image_hw: Tensor, autocast: Autocast = nullcontext,
) -> list[StageLoss]:  # fmt: skip
    """Return the losses of each stage from the boxes of the first, labelled.

    `pooled` gives the features of boxes, `match_again(boxes, exists, stage)` labels refined ones; those without an area
    are dropped.
    """
    found = []
    for number, stage in enumerate(stages):
        boxes, exists = matched.boxes, matched.exists
        features: Tensor = _ScaleGradient.apply(pooled(boxes), 1 / len(stages))  # type: ignore[no-untyped-call]
        with autocast():
            logits, corrections = stage(features)
        logits, corrections = logits.float(), corrections.float().view_as(boxes)
        found.append(_compare(logits, corrections, matched, number))
        if number + 1 < len(stages):
            refined = correct_boxes(boxes, corrections.detach(), correction_weights(number))
            refined = clip_boxes(refined, image_hw)
            matched = match_again(refined, exists & have_area(refined), number + 1)
    return found


def _compare(logits: Tensor, corrections: Tensor, matched: Matched, stage: int) -> StageLoss:
    boxes, exists, labels, objects = matched
    background = logits.shape[1] - 1
    each = F.cross_entropy(logits, labels.flatten(), reduction="none")
    is_object = ((labels < background) & exists).unsqueeze(-1)
    anywhere = boxes.new_tensor([0, 0, 1, 1])
    source, target = (torch.where(is_object, values, anywhere) for values in (boxes, objects))
    wanted = encode_corrections(source, target, correction_weights(stage))
    apart = ((corrections - wanted).abs() * is_object).sum()
    return StageLoss((each * exists.flatten()).sum(), apart, exists.sum().float())
