"""COCO's twelve numbers by pycocotools, and detections as a COCO results file."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ctnet.data.box_form import to_xywh
from ctnet.data.layouts.coco import coco_dict
from ctnet.errors import DataError, listed
from ctnet.files import write_file
from ctnet.types import AnnotationSet, Category, Detections, Int64, counted_names, flat_points
from ctnet.weights.class_names import are_placeholders

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREAS = ["all", "small", "medium", "large"]


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's numbers in 0..1; None where there is no ground truth to measure by.

    `per_class` maps each category name, with its id where several have the name, to its `AP`, `AP50` and `count` of
    boxes (crowds left out).
    `precision` (T,R,C) float64 is that at each of `IOU_THRESHOLDS`, `RECALL_POINTS` and labels, NaN without
    ground truth.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    per_class: dict[str, dict[str, float | int | None]]
    precision: NDArray[np.float64]

    def numbers(self) -> dict[str, float | None]:
        """Return the twelve numbers by name, in COCO's order."""
        names = [f.name for f in fields(self) if f.name.startswith("A")]
        return {name: getattr(self, name) for name in names}


class ClassMatch(NamedTuple):
    """How a detector's labels read in a data set: `labels` (C,) is the set's label of each, -1 for none."""

    labels: Int64
    warnings: tuple[str, ...]


def coco_metrics(
    annotation_set: AnnotationSet, detections: Mapping[int, Detections], max_detections: int = 100
) -> CocoMetrics:
    """Return COCO's metrics of detections by image id, whose labels are those of the annotation set.

    Boxes and scores are rounded as `results_list` does, so a saved results file scores exactly the same. At
    most `max_detections` of each image and class count, also for the number named AR100.
    """
    truth = indexed(coco_dict(annotation_set))
    found = indexed(results_dict(detections, annotation_set))
    with contextlib.redirect_stdout(io.StringIO()):
        scorer = COCOeval(truth, found, "bbox")
        scorer.params.iouThrs = IOU_THRESHOLDS
        scorer.params.recThrs = RECALL_POINTS
        scorer.params.catIds = [category.id for category in annotation_set.categories]
        scorer.params.maxDets = [min(1, max_detections), min(10, max_detections), max_detections]
        # COCOeval sorts both lists; labels are in file order, so its category axis is put back below.
        scorer.evaluate()
        scorer.accumulate()
    order = np.argsort(np.argsort([category.id for category in annotation_set.categories], kind="stable"))
    precision = scorer.eval["precision"][:, :, order]
    recall = scorer.eval["recall"][:, order]
    every = precision[:, :, :, 0, -1]
    by_area = {
        f"{kind}{area[0]}": mean_measured(values[..., AREAS.index(area), -1])
        for kind, values in (("AP", precision), ("AR", recall))
        for area in AREAS[1:]
    }
    return CocoMetrics(
        AP=mean_measured(every),
        AP50=mean_measured(every[0]),
        AP75=mean_measured(every[5]),
        AR1=mean_measured(recall[:, :, 0, 0]),
        AR10=mean_measured(recall[:, :, 0, 1]),
        AR100=mean_measured(recall[:, :, 0, 2]),
        **by_area,
        per_class=_per_class(annotation_set, every),
        precision=np.where(every < 0, np.nan, every),
    )


def align_categories(detector: Sequence[Category], data: Sequence[Category]) -> ClassMatch:
    """Return how the detector's labels map to the data set's, by category name; those of one name, by their order.

    A class on one side alone becomes a warning: the detector misses all of what it does not know, and what
    the set does not know is not scored. A detector that does not name its classes is matched by their order. Raises
    DataError when the two share no name.
    """
    if are_placeholders(detector) and len(detector) == len(data):
        order = (
            f"the weights do not name their classes: taken in the data set's order, {listed([c.name for c in data])}"
        )
        return ClassMatch(np.arange(len(data)), (order,))
    label_of = {key: label for label, key in enumerate(counted_names(data))}
    labels = np.array([label_of.get(key, -1) for key in counted_names(detector)], np.int64)
    if not (labels >= 0).any():
        raise DataError(
            "the detector and the data set share no class",
            detector=listed([category.name for category in detector]),
            data=listed([category.name for category in data]),
            hint="classes are matched by name; rename the categories of one of them",
        )
    known = set(counted_names(detector))
    unseen = [key[0] for key in label_of if key not in known]
    unscored = [key[0] for key, label in zip(counted_names(detector), labels, strict=True) if label < 0]
    warnings = []
    if unseen:
        warnings.append(f"the detector does not know {listed(unseen)}: every such object counts as missed")
    if unscored:
        warnings.append(f"the data set has no {listed(unscored)}: such detections are not scored")
    return ClassMatch(labels, tuple(warnings))


def relabel(detections: Mapping[int, Detections], alignment: ClassMatch) -> dict[int, Detections]:
    """Return the detections with the data set's labels; those of classes it lacks are left out."""
    relabelled = {}
    for image_id, found in detections.items():
        labels = alignment.labels[found.labels]
        relabelled[image_id] = replace(found, labels=labels).select(labels >= 0)
    return relabelled


def results_list(detections: Mapping[int, Detections], categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Return COCO results: `image_id`, `category_id`, `bbox` (xywh, 0.01 pixel) and `score` (0.00001).

    Of detections with key points also `keypoints`: x, y (0.01 pixel) and 1 of each.
    """
    rows = []
    for image_id, found in detections.items():
        corners = found.boxes_xyxy.astype(np.float64)
        boxes_xywh = to_xywh(corners).round(2).tolist()
        scores = found.scores.astype(np.float64).round(5).tolist()
        for i, (box, score, label) in enumerate(zip(boxes_xywh, scores, found.labels.tolist(), strict=True)):
            points = {} if found.keypoints is None else {"keypoints": flat_points(found.keypoints[i])}
            row = {"image_id": image_id, "category_id": categories[label].id, "bbox": box, "score": score}
            rows.append({**row, **points})
    return rows


def write_results(path: Path, detections: Mapping[int, Detections], categories: Sequence[Category]) -> None:
    """Write a COCO results file, as scoring servers and pycocotools read it. Raises StorageError."""
    write_file(path, json.dumps(results_list(detections, categories)).encode())


def percent(value: float | None) -> str:
    """Return a number of 0..1 for tables, times 100 with one decimal; a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}"


def results_dict(detections: Mapping[int, Detections], annotation_set: AnnotationSet) -> dict[str, Any]:
    """Return results as a COCO data set. `loadRes` does the same, but fails when there are none."""
    rows = results_list(detections, annotation_set.categories)
    for number, row in enumerate(rows, start=1):
        row.update(id=number, area=row["bbox"][2] * row["bbox"][3], iscrowd=0)
    return {
        "images": [{"id": image.id} for image in annotation_set.images],
        "categories": [{"id": category.id, "name": category.name} for category in annotation_set.categories],
        "annotations": rows,
    }


def indexed(content: dict[str, Any]) -> COCO:
    """Return pycocotools' index of a COCO data set."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def mean_measured(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the entries that pycocotools could measure; it marks the others with -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _per_class(
    annotation_set: AnnotationSet, precision: NDArray[np.float64]
) -> dict[str, dict[str, float | int | None]]:
    counts = np.zeros(len(annotation_set.categories), np.int64)
    for image in annotation_set.images:
        np.add.at(counts, image.labels[~image.crowd], 1)
    names = Counter(category.name for category in annotation_set.categories)
    return {
        category.name if names[category.name] == 1 else f"{category.name} (id {category.id})": {
            "AP": mean_measured(precision[:, :, label]),
            "AP50": mean_measured(precision[0, :, label]),
            "count": int(counts[label]),
        }
        for label, category in enumerate(annotation_set.categories)
    }
