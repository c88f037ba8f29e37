"""The nouns that every room shares: annotations going in, detections coming out.

Boxes are float32 `xyxy` in original image pixels, labels are contiguous indices `0..C-1`; the category keeps the
id and name of the file it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

Progress = Callable[[int, int], None]
"""called with how many are done and how many there are in all"""

TargetRules = Literal["centernet", "mmdet"]
"""Whose rules turn boxes into targets, and targets and outputs into losses."""


class Category(NamedTuple):
    """A class as its annotation file knows it."""

    id: int
    name: str


@dataclass(frozen=True)
class ImageRecord:
    """One picture and its ground truth, as read: nothing clipped, nothing dropped.

    `boxes_xyxy` (N,4) float32, `labels` (N,) int64, `crowd` (N,) bool, `areas` (N,) float32 in square pixels (COCO
    sorts objects into small, medium and large by it), `annotation_ids` (N,) int64 for messages.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: Float32
    labels: Int64
    crowd: NDArray[np.bool_]
    areas: Float32
    annotation_ids: Int64


@dataclass(frozen=True)
class AnnotationSet:
    """One split of a data set: its categories in label order and its pictures in file order."""

    source: Path
    split: str
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    sought: str = ""
    """where annotations were looked for, when the layout keeps them in a file an image and there is not a single one"""

    @property
    def num_boxes(self) -> int:
        """Number of annotated boxes over all pictures, crowds included."""
        return sum(len(image.labels) for image in self.images)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of classes, images' names and sizes, and objects, wherever the set lies."""
        sha = hashlib.sha256(json.dumps([list(category) for category in self.categories]).encode())
        for image in self.images:
            sha.update(f"{image.id}\0{image.path.name}\0{image.width}\0{image.height}\0{len(image.labels)}\0".encode())
            for array in (image.boxes_xyxy, image.labels, image.crowd, image.areas):
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def _no_boxes() -> Float32:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Detections:
    """What a detector saw in one picture, strongest first.

    `boxes_xyxy` (N,4) float32 in original image pixels, `scores` (N,) float32 in 0..1, `labels` (N,) int64.
    """

    boxes_xyxy: Float32 = field(default_factory=_no_boxes)
    scores: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Return the detections whose score is at least `score`."""
        keep = self.scores >= score
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.labels[keep])

    def to_dicts(self, categories: tuple[Category, ...]) -> list[dict[str, Any]]:
        """Return one JSON-ready dict a detection: `box` (xyxy pixels), `score`, `category_id`, `category_name`."""
        return [
            {
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 5),
                "category_id": categories[label].id,
                "category_name": categories[label].name,
            }
            for box, score, label in zip(self.boxes_xyxy, self.scores, self.labels, strict=True)
        ]


def counted_names(categories: Sequence[Category]) -> list[tuple[str, int]]:
    """Return each category's name and how many before it have the same one."""
    seen: Counter[str] = Counter()
    keys = []
    for category in categories:
        keys.append((category.name, seen[category.name]))
        seen[category.name] += 1
    return keys
