"""Scoring protocols: their numbers, the one that selects the best weights, and those shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from ctnet.eval import keypoints
from ctnet.eval.coco import CocoMetrics, coco_metrics, percent
from ctnet.families import Family
from ctnet.types import AnnotationSet, Detections


@dataclass(frozen=True)
class Scorer:
    """A protocol. `score(annotations, detections, max_detections)` returns its numbers, 0 to 1, None if undefined.

    `names` are those of the numbers; `primary` is the one that more of is better; `shown` are those of a summary and
    `per_class` those that each class has.
    """

    title: str
    names: tuple[str, ...]
    primary: str
    shown: tuple[str, ...]
    per_class: tuple[str, ...]
    score: Callable[[AnnotationSet, Mapping[int, Detections], int], CocoMetrics]
    notes: Callable[[AnnotationSet], list[str]] = lambda annotations: []
    """returns warnings about what the numbers of a set mean"""

    def sentence(self, numbers: Mapping[str, float | None]) -> str:
        """Return the numbers that are shown, times 100, in a line."""
        return "  ".join(f"{name} {percent(numbers[name])}" for name in self.shown)


COCO = Scorer(
    "COCO metrics",
    tuple(f.name for f in fields(CocoMetrics) if f.name.startswith("A")),
    primary="AP",
    shown=("AP", "AP50", "AP75"),
    per_class=("AP", "AP50"),
    score=coco_metrics,
)

KEYPOINTS = Scorer(
    "COCO metrics of boxes and of key points (kp), NME and PCK",
    (*COCO.names, *keypoints.NAMES),
    primary="kpAP",
    shown=("AP", "AP50", "kpAP", "kpAP50", "NME", "PCK"),
    per_class=COCO.per_class,
    score=keypoints.keypoint_metrics,
    notes=keypoints.keypoint_notes,
)


def scorer_of(family: Family, annotations: AnnotationSet | None) -> Scorer:
    """Return the protocol by which detectors of a family are scored on a set: with key points where both have some."""
    if annotations is None or annotations.keypoints is None or "keypoints" not in family.instance_names:
        return COCO
    labelled = any(image.keypoints is not None and (image.keypoints[..., 2] > 0).any() for image in annotations.images)
    lacking = family.keypoints is None or set(annotations.keypoints.names) - set(family.keypoints.names)
    return KEYPOINTS if labelled and not lacking else COCO
