"""Types that all packages share: annotations, targets, outputs, detections.

Boxes are float32 `xyxy` in original image pixels, labels are contiguous indices `0..C-1`; the category keeps the
id and name of the file it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

Progress = Callable[[int, int], None]
"""called with how many are done and how many there are in all"""

R = TypeVar("R", bound="_Rows")

if TYPE_CHECKING:
    from torch import Tensor


class Category(NamedTuple):
    """A class as its annotation file knows it."""

    id: int
    name: str


@dataclass(frozen=True)
class KeypointSchema:
    """The key points of an object: their names, what a mirror image swaps, and how they are drawn and scored.

    `flip_pairs` are indices of points that a mirror image swaps, such as left and right eye; `skeleton` are indices
    of points that are drawn joined; `sigmas` are COCO's, one a point, or none.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None

    def mirrored(self) -> list[int]:
        """Return, for each point, the index of the point that takes its place in a mirror image."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order


class _Rows:
    """A dataclass whose arrays have a row for each object. Nothing else indexes them."""

    def _change(self: R, change: Callable[..., Any], *others: R) -> R:
        """Return the objects with every field that is there changed, together with those of the others."""
        changed: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):  # type: ignore[arg-type]
            first, *rest = (getattr(rows, name) for rows in (self, *others))
            if isinstance(first, Mapping):
                changed[name] = {key: change(first[key], *(values[key] for values in rest)) for key in first}
            elif first is not None:
                changed[name] = change(first, *rest)
        return replace(self, **changed)  # type: ignore[type-var]

    def select(self: R, index: Any) -> R:
        """Return the objects of an index: a mask, indices or a slice."""
        return self._change(lambda values: values[index])

    def concatenate(self: R, *others: R) -> R:
        """Return these objects and those of the others behind them; all have the same fields."""
        return self._change(lambda *arrays: np.concatenate(arrays), *others)


@dataclass(frozen=True)
class Objects(_Rows):
    """Annotated objects: `boxes_xyxy` (N,4) float32, `labels` (N,) int64, perhaps `keypoints` (N,P,3) float32.

    A key point is x, y and, as in COCO, 0 where it is not labelled, 1 where it is hidden and 2 where it is visible.
    """

    boxes_xyxy: Float32
    labels: Int64
    keypoints: Float32 | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageRecord:
    """One image and its ground truth, as read: nothing clipped, nothing dropped.

    `boxes_xyxy` (N,4) float32, `labels` (N,) int64, `crowd` (N,) bool, `areas` (N,) float32 in square pixels (COCO
    sorts objects into small, medium and large by it), `annotation_ids` (N,) int64 for messages, `keypoints` as in
    `Objects`.
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
    keypoints: Float32 | None = None

    @property
    def objects(self) -> Objects:
        """All annotated objects, crowds included."""
        return Objects(self.boxes_xyxy, self.labels, self.keypoints)


@dataclass(frozen=True)
class AnnotationSet:
    """One split of a data set: its categories in label order and its images in file order.

    `keypoints` says what the key points of its objects are, None where they have none.
    """

    source: Path
    split: str
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    sought: str = ""
    """where annotations were looked for, when the layout keeps them in a file an image and there is not a single one"""
    keypoints: KeypointSchema | None = None

    @property
    def num_boxes(self) -> int:
        """Number of annotated boxes over all images, crowds included."""
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
class Detections(_Rows):
    """What a detector found in one image, strongest first.

    `boxes_xyxy` (N,4) float32 in original image pixels, `scores` (N,) float32 in 0..1, `labels` (N,) int64, perhaps
    `keypoints` (N,P,2) float32, x and y in image pixels. `values` holds (N,...) float32 of further heads by name.
    """

    boxes_xyxy: Float32 = field(default_factory=_no_boxes)
    scores: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    keypoints: Float32 | None = None
    values: Mapping[str, Float32] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Return the detections whose score is at least `score`."""
        return self.select(self.scores >= score)

    def to_dicts(self, categories: tuple[Category, ...]) -> list[dict[str, Any]]:
        """Return one JSON-ready dict a detection: `box` (xyxy pixels), `score`, `category_id`, `category_name`."""
        entries = []
        for i, label in enumerate(self.labels):
            more = {name: values[i] for name, values in self.values.items()}
            if self.keypoints is not None:
                more["keypoints"] = self.keypoints[i]
            entries.append(
                {
                    "box": [round(float(v), 2) for v in self.boxes_xyxy[i]],
                    "score": round(float(self.scores[i]), 5),
                    "category_id": categories[label].id,
                    "category_name": categories[label].name,
                    **{name: np.round(value.astype(np.float64), 4).tolist() for name, value in more.items()},
                }
            )
        return entries


class FeatureSpec(NamedTuple):
    """A map that a backbone or a neck returns: its channels, and the input pixels from cell to cell."""

    channels: int
    stride: int


class Targets(NamedTuple):
    """What a network is taught about an image, in numpy, or about a batch, in torch.

    `maps` have the size of a map, (...,H,W), and are stacked; `rows` have a row for each object, (N,...), and are
    padded with zeros. Names are the family's.
    """

    maps: Mapping[str, Any]
    rows: Mapping[str, Any]

    def change(self, function: Callable[[Any], Any]) -> Targets:
        """Return the targets with each array or tensor changed."""
        return Targets(*({name: function(values) for name, values in part.items()} for part in self))


@dataclass(frozen=True)
class Instances:
    """Decoded objects of a batch in *input* pixels, strongest first; those that are missing have the score 0.

    `boxes` (B,K,4) xyxy, `scores` (B,K) in 0..1, `labels` (B,K), perhaps `keypoints` (B,K,P,2), and `values` (B,K,...)
    of further heads by name.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    keypoints: Tensor | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict)

    def named(self) -> dict[str, Tensor]:
        """Return the tensors by the names that exported files give them."""
        points = {} if self.keypoints is None else {"keypoints": self.keypoints}
        return {"boxes": self.boxes, "scores": self.scores, "labels": self.labels, **points, **self.values}

    @staticmethod
    def of(named: Mapping[str, Tensor]) -> Instances:
        """Return what `named` gave."""
        known = ("boxes", "scores", "labels", "keypoints")
        fixed = {name: named[name] for name in known if name in named}
        return Instances(**fixed, values={name: value for name, value in named.items() if name not in known})


def counted_names(categories: Sequence[Category]) -> list[tuple[str, int]]:
    """Return each category's name and how many before it have the same one."""
    seen: Counter[str] = Counter()
    keys = []
    for category in categories:
        keys.append((category.name, seen[category.name]))
        seen[category.name] += 1
    return keys
