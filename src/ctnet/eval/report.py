"""The evaluation as one JSON document, and as a folder of tables and plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.image import read_image, write_image
from ctnet.eval import matching, plots
from ctnet.eval.coco import RECALL_POINTS, CocoMetrics
from ctnet.eval.html import page
from ctnet.eval.keypoints import KeypointMetrics, PointMatch
from ctnet.files import write_file, writing
from ctnet.types import AnnotationSet, Detections, Int64

WORST = 12


def evaluation_document(
    weights: str,
    annotation_set: AnnotationSet,
    metrics: CocoMetrics,
    protocol: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `ctnet eval --json` prints and `metrics.json` holds: metrics in 0..1, None if undefined."""
    return {
        "schema": "ctnet.eval/1",
        "weights": weights,
        "data": {
            "path": str(annotation_set.source),
            "split": annotation_set.split,
            "images": len(annotation_set.images),
            "boxes": annotation_set.num_boxes,
        },
        "protocol": dict(protocol),
        "metrics": metrics.numbers(),
        "per_class": metrics.per_class,
        **({"per_point": metrics.per_point} if isinstance(metrics, KeypointMetrics) else {}),
        "warnings": list(warnings),
    }


def write_report(
    folder: Path,
    annotation_set: AnnotationSet,
    detections: Mapping[int, Detections],
    metrics: CocoMetrics,
    document: Mapping[str, Any],
    title: str,
) -> Path:
    """Return `index.html` of a report written into the folder, over an earlier one but beside any other file.

    `detections` have the set's labels, `document` is that of `evaluation_document`. The page comes last: a
    folder without one is a report that was cut short. Raises StorageError when the disk refuses.
    """
    index = folder / "index.html"
    with writing(index):
        for stale in [index, *folder.glob("worst*/[0-9][0-9].png")]:
            stale.unlink(missing_ok=True)
    matches = matching.match_all(annotation_set, detections)
    counts = matching.confusion_matrix(matches, len(annotation_set.categories))
    write_file(folder / "metrics.json", f"{json.dumps(document, indent=2)}\n".encode())
    write_file(folder / "precision_recall.csv", _csv(_curve_rows(metrics)))
    write_file(folder / "confusion.csv", _csv(_confusion_rows(counts, annotation_set)))
    write_image(folder / "precision_recall.png", plots.precision_recall_plot(metrics, annotation_set.categories))
    write_image(folder / "confusion.png", plots.confusion_plot(counts, annotation_set.categories))
    worst = _write_worst(folder, annotation_set, matches)
    misplaced = _write_misplaced(folder, metrics.matches, detections) if isinstance(metrics, KeypointMetrics) else []
    thresholds = {"iou": matching.IOU, "score": matching.SCORE}
    write_file(index, page(title, document, thresholds, worst, misplaced).encode())
    return index


def _write_misplaced(
    folder: Path, matches: Sequence[PointMatch], detections: Mapping[int, Detections]
) -> list[tuple[str, str]]:
    """Return (image, caption) of the found objects whose key points are farthest away, after drawing them."""
    found = [match for match in matches if match.found >= 0 and np.isfinite(match.nme)]
    written = []
    for number, match in enumerate(sorted(found, key=lambda match: -match.nme)[:WORST], start=1):
        record, points = match.image, detections[match.image.id].keypoints
        assert points is not None
        assert record.keypoints is not None
        name = f"worst_points/{number:02d}.png"
        image, box = read_image(record.path), record.boxes_xyxy[match.row]
        write_image(folder / name, plots.points_plot(image, box, record.keypoints[match.row], points[match.found]))
        written.append(
            (name, f"{record.path.name}, annotation {record.annotation_ids[match.row]}: NME {match.nme:.3f}")
        )
    return written


def _write_worst(
    folder: Path, annotation_set: AnnotationSet, matches: Mapping[int, matching.Match]
) -> list[tuple[str, str]]:
    """Return (image, caption) of the images with most errors, after drawing them."""
    ranked = sorted(annotation_set.images, key=lambda image: -matches[image.id].num_errors)
    written = []
    for number, image in enumerate(ranked[:WORST], start=1):
        match = matches[image.id]
        if not match.num_errors:
            break
        name = f"worst/{number:02d}.png"
        write_image(folder / name, plots.match_plot(read_image(image.path), match, annotation_set.categories))
        missed, wrong = len(match.missed), int((~match.correct).sum())
        written.append((name, f"{image.path.name}: {missed} missed, {wrong} wrong"))
    return written


def _curve_rows(metrics: CocoMetrics) -> Iterable[Sequence[object]]:
    yield "class", "recall", "precision_50", "precision_50_95"
    mean_RC = metrics.precision.mean(axis=0)
    for label, name in enumerate(metrics.per_class):
        rows = zip(RECALL_POINTS, metrics.precision[0, :, label], mean_RC[:, label], strict=True)
        for recall, at_50, at_50_95 in rows:
            yield name, f"{recall:.2f}", f"{at_50:.4f}", f"{at_50_95:.4f}"


def _confusion_rows(counts: Int64, annotation_set: AnnotationSet) -> Iterable[Sequence[object]]:
    names = [*(category.name for category in annotation_set.categories), "background"]
    yield ["true \\ predicted", *names]
    for name, row in zip(names, counts.tolist(), strict=True):
        yield [name, *row]


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
