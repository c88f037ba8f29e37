"""How well key points are placed: COCO's AP over object key point similarity by pycocotools, NME and PCK."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from ctnet.data.layouts.coco import coco_dict
from ctnet.data.layouts.keypoints import labels_with_points
from ctnet.errors import listed
from ctnet.eval.coco import (
    IOU_THRESHOLDS,
    RECALL_POINTS,
    CocoMetrics,
    coco_metrics,
    indexed,
    mean_measured,
    results_dict,
)
from ctnet.eval.matching import IOU, box_iou
from ctnet.types import AnnotationSet, Detections, ImageRecord, Int64, KeypointSchema

DEFAULT_SIGMA = 0.05
"""of a key point whose data set states none; COCO's go from 0.025 for eyes to 0.107 for hips"""
MOST = 20
"""detections of an image that COCO's key-point protocol takes"""
PCK_AT = 0.1
"""a point is right within this part of the longer side of its object's box"""
NAMES = (
    "kpAP", "kpAP50", "kpAP75", "kpAPm", "kpAPl", "kpAR", "kpAR50", "kpAR75", "kpARm", "kpARl", "NME", "PCK"
)  # fmt: skip
_AREAS = ["all", "medium", "large"]

Errors = NDArray[np.float64]


class PointMatch(NamedTuple):
    """An annotated object with labelled points, and the detection of it.

    `row` and `found` are its rows in the image's objects and detections, `found` -1 where it was missed. `errors`
    (P,) are distances in pixels, NaN for points that are not labelled and for a missed object; `labelled` (P,) bool.
    `side` is the longer side of its box and `root` the square root of the box's area, in pixels.
    """

    image: ImageRecord
    row: int
    found: int
    errors: Errors
    labelled: NDArray[np.bool_]
    side: float
    root: float

    @property
    def nme(self) -> float:
        """The mean error relative to the root of the box's area, NaN for a missed object."""
        return float(np.mean(self.errors[self.labelled]) / self.root)


@dataclass(frozen=True)
class KeypointMetrics(CocoMetrics):
    """COCO's twelve numbers of boxes, and those of `NAMES` for key points.

    NME is the mean distance of the points of found objects from the labelled ones, relative to the square root of the
    box's area; PCK the share of all labelled points, also of missed objects, that were placed within `PCK_AT` of the
    longer side. Both match detections to objects as COCO does, at a box IoU of 0.5.
    """

    keypoints: Mapping[str, float | None]
    per_point: Mapping[str, Mapping[str, float | None]]
    """NME and PCK of each point by name"""
    matches: tuple[PointMatch, ...]

    def numbers(self) -> dict[str, float | None]:
        """Return all numbers by name."""
        return {**super().numbers(), **self.keypoints}


def keypoint_metrics(
    annotation_set: AnnotationSet, detections: Mapping[int, Detections], max_detections: int = 100
) -> KeypointMetrics:
    """Return the metrics of detections with key points, whose labels and points are those of the annotation set.

    Categories without a labelled point count for boxes alone.
    """
    boxes = coco_metrics(annotation_set, detections, max_detections)
    schema = annotation_set.keypoints
    assert schema is not None
    matches = tuple(match_points(annotation_set, detections))
    errors, placed, labelled = _distances(matches, len(schema.names))
    per_point = {
        name: {"NME": _mean(errors[:, i]), "PCK": _mean(np.where(labelled[:, i], placed[:, i], np.nan))}
        for i, name in enumerate(schema.names)
    }
    found = [match.nme for match in matches if match.found >= 0]
    more = {"NME": float(np.mean(found)) if found else None, "PCK": _mean(np.where(labelled, placed, np.nan))}
    own = {field.name: getattr(boxes, field.name) for field in fields(boxes)}
    return KeypointMetrics(
        **own, keypoints={**_oks(annotation_set, detections), **more}, per_point=per_point, matches=matches
    )


def keypoint_notes(annotation_set: AnnotationSet) -> list[str]:
    """Return warnings about what the numbers of a set with key points mean."""
    notes = []
    schema = annotation_set.keypoints
    if schema is not None and schema.sigmas is None:
        notes.append(
            f"the data set states no sigmas for its key points: kpAP takes {DEFAULT_SIGMA} for each; "
            "write sigmas into the category (COCO) or data.yaml (YOLO)"
        )
    many = sum(
        (image.keypoints[..., 2] > 0).any(1).sum() > MOST
        for image in annotation_set.images
        if image.keypoints is not None
    )
    if many:
        notes.append(
            f"{many} images have more than {MOST} objects with key points: kpAP counts {MOST} detections an image"
        )
    return notes


def aligned_points(
    detections: Mapping[int, Detections], theirs: KeypointSchema | None, ours: KeypointSchema
) -> tuple[dict[int, Detections], str]:
    """Return the detections with a data set's points, chosen by name, and a warning, empty if none is needed.

    Where the detector lacks a point they are returned without any, and the warning tells which.
    """
    if theirs is None or theirs.names == ours.names:
        return dict(detections), ""
    lacking = [name for name in ours.names if name not in theirs.names]
    if lacking:
        without = {key: replace(found, keypoints=None) for key, found in detections.items()}
        return without, f"the detector does not know the key points {listed(lacking)}: boxes alone are scored"
    order = [theirs.names.index(name) for name in ours.names]
    chosen = {
        key: found if found.keypoints is None else replace(found, keypoints=found.keypoints[:, order])
        for key, found in detections.items()
    }
    return chosen, ""


def match_points(annotation_set: AnnotationSet, detections: Mapping[int, Detections]) -> Iterator[PointMatch]:
    """Yield every object with area and labelled points, crowds left out, and the detection that found it.

    The strongest detection is matched first, to the object of its class that it overlaps most and by at least 0.5.
    """
    for image in annotation_set.images:
        if image.keypoints is None or not len(image.labels):
            continue
        sides = (image.boxes_xyxy[:, 2:] - image.boxes_xyxy[:, :2]).astype(np.float64)
        found = detections.get(image.id, Detections())
        found_by = _assign(image, found)
        for index in np.flatnonzero(~image.crowd & (sides > 0).all(1)):
            labelled = image.keypoints[index, :, 2] > 0
            if not labelled.any():
                continue
            errors = np.full(len(labelled), np.nan)
            by = int(found_by[index])
            if by >= 0 and found.keypoints is not None:
                apart = found.keypoints[by].astype(np.float64) - image.keypoints[index, :, :2]
                errors[labelled] = np.hypot(*apart[labelled].T)
            side, root = float(sides[index].max()), float(np.sqrt(sides[index].prod()))
            yield PointMatch(image, int(index), by, errors, labelled, side, root)


def _assign(image: ImageRecord, found: Detections) -> Int64:
    """Return the detection of each object, -1 for none."""
    found_by = np.full(len(image.labels), -1, np.int64)
    overlap = box_iou(found.boxes_xyxy, image.boxes_xyxy)
    overlap[(found.labels[:, None] != image.labels) | image.crowd] = 0
    for row in np.argsort(-found.scores, kind="stable"):
        free = np.where(found_by < 0, overlap[row], 0)
        best = int(np.argmax(free))
        if free[best] >= IOU:
            found_by[best] = row
    return found_by


def _distances(matches: Sequence[PointMatch], points: int) -> tuple[Errors, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (N,P): errors relative to the root of the box, which points were placed well, which are labelled."""
    if not matches:
        return np.zeros((0, points)), np.zeros((0, points), bool), np.zeros((0, points), bool)
    errors = np.stack([match.errors for match in matches])
    roots, sides = np.array([(match.root, match.side) for match in matches]).T
    placed = np.nan_to_num(errors, nan=np.inf) <= PCK_AT * sides[:, None]
    return errors / roots[:, None], placed, np.stack([match.labelled for match in matches])


def _mean(values: NDArray[Any]) -> float | None:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if measured.size else None


def _oks(annotation_set: AnnotationSet, detections: Mapping[int, Detections]) -> dict[str, float | None]:
    """Return COCO's ten numbers of key points."""
    schema = annotation_set.keypoints
    assert schema is not None
    truth, found = indexed(coco_dict(annotation_set)), indexed(results_dict(detections, annotation_set))
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(truth, found, "keypoints")
        scorer.params.iouThrs, scorer.params.recThrs = IOU_THRESHOLDS, RECALL_POINTS
        scorer.params.maxDets = [MOST]
        scorer.params.kpt_oks_sigmas = np.array(schema.sigmas or [DEFAULT_SIGMA] * len(schema.names))
        pointed = labels_with_points(annotation_set)
        scorer.params.catIds = [annotation_set.categories[label].id for label in sorted(pointed)]
        scorer.evaluate()
        scorer.accumulate()
    precision, recall = scorer.eval["precision"][..., 0], scorer.eval["recall"][..., 0]
    numbers: dict[str, float | None] = {}
    for kind, values in (("kpAP", precision), ("kpAR", recall)):
        every = values[..., 0]
        numbers |= {
            kind: mean_measured(every),
            f"{kind}50": mean_measured(every[0]),
            f"{kind}75": mean_measured(every[5]),
        }
        numbers |= {f"{kind}{area[0]}": mean_measured(values[..., _AREAS.index(area)]) for area in _AREAS[1:]}
    return numbers
