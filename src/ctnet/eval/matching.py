"""Which detection found which object: the bookkeeping behind the confusion matrix and the worst images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ctnet.types import AnnotationSet, Detections, Float32, ImageRecord, Int64

IOU = 0.5
SCORE = 0.3


class Match(NamedTuple):
    """One image's detections against its objects, crowds left out of both.

    `truth_boxes` (N,4) and `truth_labels` (N,) are the objects; `found` the D detections that count;
    `truth_of` (D,) int64 is the object of each detection, -1 for none; `truth_points` (N,P,3) are the objects' key
    points, None without any.
    """

    truth_boxes: Float32
    truth_labels: Int64
    found: Detections
    truth_of: Int64
    truth_points: Float32 | None = None

    @property
    def missed(self) -> Int64:
        """Objects that no detection was matched to."""
        return np.setdiff1d(np.arange(len(self.truth_labels)), self.truth_of)

    @property
    def correct(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether each detection was matched to an object of its own class, (D,)."""
        hit = self.truth_of >= 0
        hit[hit] = self.truth_labels[self.truth_of[hit]] == self.found.labels[hit]
        return hit

    @property
    def num_errors(self) -> int:
        """Missed objects plus detections that are wrong."""
        return len(self.missed) + int((~self.correct).sum())


def match(image: ImageRecord, detections: Detections, iou: float = IOU, score: float = SCORE) -> Match:
    """Return detections of at least `score` matched to objects, best overlap first, whatever their classes.

    Each side is used once. Equal overlaps go to the same class, then to the higher score. Unmatched
    detections that lie in a crowd by at least `iou` of their own area are ignored.
    """
    found = detections.above(score)
    boxes, labels = image.boxes_xyxy[~image.crowd], image.labels[~image.crowd]
    overlap = box_iou(found.boxes_xyxy, boxes)
    rows, columns = np.nonzero(overlap >= iou)
    other_class = found.labels[rows] != labels[columns]
    truth_of = np.full(len(found), -1, np.int64)
    taken = np.zeros(len(labels), bool)
    for pair in np.lexsort((-found.scores[rows], other_class, -overlap[rows, columns])):
        row, column = rows[pair], columns[pair]
        if truth_of[row] < 0 and not taken[column]:
            truth_of[row], taken[column] = column, True
    in_crowd = _share_inside(found.boxes_xyxy, image.boxes_xyxy[image.crowd]) >= iou
    keep = (truth_of >= 0) | ~in_crowd
    points = None if image.keypoints is None else image.keypoints[~image.crowd]
    return Match(boxes, labels, found.select(keep), truth_of[keep], points)


def match_all(
    annotation_set: AnnotationSet,
    detections: Mapping[int, Detections],
    iou: float = IOU,
    score: float = SCORE,
) -> dict[int, Match]:
    """Return the match of every image by image id; without detections all its objects are missed."""
    return {
        image.id: match(image, detections.get(image.id, Detections()), iou, score) for image in annotation_set.images
    }


def confusion_matrix(matches: Mapping[int, Match], num_classes: int) -> Int64:
    """Return counts (C+1,C+1): rows are true classes, columns predicted ones, the last is background."""
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for one in matches.values():
        # An unmatched detection has object -1, which picks the background put at the end.
        truth_labels = np.append(one.truth_labels, num_classes)
        missed_labels = one.truth_labels[one.missed]
        np.add.at(counts, (truth_labels[one.truth_of], one.found.labels), 1)
        np.add.at(counts, (missed_labels, np.full_like(missed_labels, num_classes)), 1)
    return counts


def _intersection(a: Float32, b: Float32) -> Float32:
    """Return the pairwise common area (A,B) of two lists of boxes."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.asarray(sides.clip(0).prod(axis=2), np.float32)


def _area(boxes: Float32) -> Float32:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1), np.float32)


def box_iou(a: Float32, b: Float32) -> Float32:
    """Return the pairwise IoU (A,B) of two lists of boxes xyxy."""
    common = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - common
    return np.asarray(common / np.maximum(union, 1e-9), np.float32)


def _share_inside(boxes: Float32, regions: Float32) -> Float32:
    """Return, per box, the largest share of its area that lies in one of the regions; 0 without regions."""
    share = _intersection(boxes, regions) / np.maximum(_area(boxes), 1e-9)[:, None]
    return np.asarray(share.max(axis=1, initial=0), np.float32)
