"""Non-maximum suppression: greedy, and soft (Bodla et al., "Soft-NMS", 2017).

CenterNet needs neither for one view of an image; they merge detections of several scales. Boxes are (N,4) xyxy pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

torch.library.define(
    "ctnet::nms",
    "(Tensor boxes, Tensor scores, Tensor labels, float iou_threshold, bool plus_one, int? limit=None) -> Tensor",
)
torch.library.define(
    "ctnet::soft_nms",
    "(Tensor boxes, Tensor scores, str method, float sigma, float iou_threshold, float score_floor, bool plus_one)"
    " -> Tensor",
)


def nms(
    boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float = 0.5, *, plus_one: bool = False
) -> Tensor:
    """Return the indices (int64, strongest first) that greedy NMS keeps within each class.

    A box goes when its IoU with a stronger kept one of the same label exceeds the threshold; equal scores keep the
    earlier box. `plus_one` measures sides as x2 - x1 + 1, as older evaluation code does. A box whose score is NaN is
    not kept and suppresses none; one with a side that is not finite overlaps none.

    Raises:
        ValueError: shapes or devices do not agree, or the threshold is NaN.
    """
    return _nms("nms: labels", boxes_xyxy, scores, labels, iou_threshold, plus_one, None)


def batched_nms(
    boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, *, limit: int | None = None
) -> Tensor:
    """Return the indices (int64, strongest first) that greedy NMS keeps of all images and classes at once.

    As `nms`, where boxes meet those of their own group alone: `groups` (N,) int64 numbers image and class together,
    such as `image * classes + label`, or the image where classes do not matter. Of each group the `limit` strongest
    that survive are returned, and those whose score equals the last of them; what would come after is not computed.

    Raises:
        ValueError: shapes or devices do not agree, the threshold is NaN, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"batched_nms: a limit of at least 1, or None, expected, got {limit}")
    return _nms("batched_nms: groups", boxes_xyxy, scores, groups, iou_threshold, False, limit)


def _nms(
    what: str, boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None
) -> Tensor:
    _check(boxes, scores)
    if labels.shape != scores.shape or labels.device != boxes.device:
        raise ValueError(f"{what} (N,) beside the boxes expected, got {tuple(labels.shape)} on {labels.device}")
    if iou_threshold != iou_threshold:
        raise ValueError(f"{what.partition(':')[0]}: iou_threshold must be a number, got nan")
    kept: Tensor = torch.ops.ctnet.nms(boxes, scores, labels, iou_threshold, plus_one, limit)
    return kept


def soft_nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    *,
    method: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    score_floor: float = 0.001,
    plus_one: bool = True,
) -> Tensor:
    """Return decayed scores (N,), in the order given, of boxes of one class.

    Strongest first, each box decays the rest: gaussian by exp(-IoU^2 / sigma), linear by 1 - IoU above the threshold.
    A box that falls below `score_floor` neither decays further nor decays others but keeps its last score, as in
    CenterNet's evaluation, which also measures areas with `plus_one`. A score that is NaN stays so and decays no other;
    a box with a side that is not finite overlaps none.

    Raises:
        ValueError: shapes or devices do not agree, an unknown method, a sigma that is not above 0, a threshold or floor
            that is NaN.
    """
    _check(boxes_xyxy, scores)
    if method not in ("gaussian", "linear"):
        raise ValueError(f"soft_nms: method must be gaussian or linear, got {method!r}")
    if not sigma > 0 or iou_threshold != iou_threshold or score_floor != score_floor:
        raise ValueError(f"soft_nms: sigma > 0 and numbers expected, got {sigma=} {iou_threshold=} {score_floor=}")
    decayed: Tensor = torch.ops.ctnet.soft_nms(boxes_xyxy, scores, method, sigma, iou_threshold, score_floor, plus_one)
    return decayed


def _check(boxes: Tensor, scores: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(f"boxes (N,4) and scores (N,) expected, got {tuple(boxes.shape)}, {tuple(scores.shape)}")
    if boxes.device != scores.device:
        raise ValueError(f"boxes and scores must be on one device, got {boxes.device}, {scores.device}")


def _iou_with(box: Tensor, boxes: Tensor, extra: float) -> Tensor:
    """Return the IoU (N,) of one box (4,) with boxes (N,4); `extra` is added to every side."""
    overlap = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2]) + extra
    intersection = overlap.clamp(min=0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2] + extra).prod(1)
    union = area + (box[2:] - box[:2] + extra).prod() - intersection
    return torch.where(union > 0, intersection / union, 0)


def strongest_first(scores: Tensor) -> Tensor:
    """Return the indices of scores that are numbers, in falling order; equal ones keep theirs."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[~scores[order].isnan()]


def within_limit(kept: Tensor, scores: Tensor, labels: Tensor, limit: int | None) -> Tensor:
    """Return those of the kept indices, strongest first, that are among the `limit` strongest of their label."""
    if limit is None or limit >= len(kept):
        return kept
    by_label = torch.argsort(labels[kept], stable=True)
    sorted_labels, sorted_scores = labels[kept][by_label], scores[kept][by_label]
    last = torch.searchsorted(sorted_labels, sorted_labels) + (limit - 1)
    exists = last < len(kept)
    last = torch.where(exists, last, 0)
    full = exists & (sorted_labels[last] == sorted_labels)
    stays = torch.empty_like(full)
    stays[by_label] = ~full | (sorted_scores >= sorted_scores[last])
    return kept[stays]


def reference_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return the kept indices by the reference."""
    order = strongest_first(scores)
    sorted_boxes, sorted_labels = boxes[order].double(), labels[order]
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for position in range(len(order)):
        if alive[position]:
            later = slice(position + 1, None)
            iou = _iou_with(sorted_boxes[position], sorted_boxes[later], float(plus_one))
            alive[later] &= (iou <= iou_threshold) | (sorted_labels[later] != sorted_labels[position])
    return within_limit(order[alive], scores, labels, limit)


def reference_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    sigma: float,
    iou_threshold: float,
    score_floor: float,
    plus_one: bool,
) -> Tensor:
    """Return the decayed scores by the reference."""
    boxes, decayed = boxes.double(), scores.double().clone()
    waiting = ~decayed.isnan()
    for _ in range(len(scores)):
        if not waiting.any():
            break
        strongest = torch.where(waiting, decayed, -torch.inf).argmax()
        waiting[strongest] = False
        iou = _iou_with(boxes[strongest], boxes, float(plus_one))
        if method == "gaussian":
            factor = torch.exp(-iou.square() / sigma)
        else:
            factor = torch.where(iou > iou_threshold, 1 - iou, 1)
        decayed = torch.where(waiting, decayed * factor, decayed)
        waiting &= decayed >= score_floor
    return decayed.to(scores.dtype)


torch.library.impl("ctnet::nms", "default", reference_nms)
torch.library.impl("ctnet::soft_nms", "default", reference_soft_nms)


@torch.library.register_fake("ctnet::nms")
def _nms_shape(boxes, scores, labels, iou_threshold, plus_one, limit=None):  # type: ignore[no-untyped-def]
    kept = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty((kept,), dtype=torch.int64)


@torch.library.register_fake("ctnet::soft_nms")
def _soft_nms_shape(boxes, scores, method, sigma, iou_threshold, score_floor, plus_one):  # type: ignore[no-untyped-def]
    return torch.empty_like(scores)
