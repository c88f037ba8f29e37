"""Types that all packages share: annotations, targets, outputs, detections.

Boxes are float32 `xyxy` in original image pixels, labels are contiguous indices `0..C-1`; the category keeps the
id and name of the file it came from.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from ctnet.errors import ConfigError, MissingExtra, nearest

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

    def to_json(self) -> dict[str, Any]:
        """Return what files of weights hold; `config.metadata` reads and checks it."""
        return asdict(self)


PERSON = KeypointSchema(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
        0.089, 0.089,
    ),
)  # fmt: skip
"""COCO's key points of a person"""
FACE = KeypointSchema(
    names=("left_eye", "right_eye", "nose", "left_mouth", "right_mouth"),
    flip_pairs=((0, 1), (3, 4)),
    skeleton=((0, 2), (1, 2), (2, 3), (2, 4), (3, 4)),
)
"""the landmarks of a face in WIDER FACE's annotations"""


class _Rows:
    """A dataclass whose arrays have a row for each object. Nothing else indexes them.

    Fields with `whole` in their metadata are not of objects and stay as they are.
    """

    def _change(self: R, change: Callable[..., Any], *others: R) -> R:
        """Return the objects with every field that is there changed, together with those of the others."""
        changed: dict[str, Any] = {}
        for name in (f.name for f in fields(self) if "whole" not in f.metadata):  # type: ignore[arg-type]
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
    notes: tuple[str, ...] = ()
    """what is doubtful about the annotation files, in sentences for the user"""

    @property
    def num_boxes(self) -> int:
        """Number of annotated boxes over all images, crowds included."""
        return sum(len(image.labels) for image in self.images)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of classes, images' names and sizes, and objects, wherever the set lies."""
        sha = hashlib.sha256(json.dumps([list(category) for category in self.categories]).encode())
        for image in self.images:
            sha.update(f"{image.id}\0{image.path.name}\0{image.width}\0{image.height}\0{len(image.labels)}\0".encode())
            points = () if image.keypoints is None else (image.keypoints,)
            for array in (image.boxes_xyxy, image.labels, image.crowd, image.areas, *points):
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def flat_points(points: Float32) -> list[float]:
    """Return points (P,2) as COCO's results have them: x, y (0.01 pixel) and 1 of each."""
    return [value for x, y in points.astype(np.float64).round(2).tolist() for value in (x, y, 1)]


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(f"the package {name} is not installed", hint=f"pip install {name}") from None


def _no_boxes() -> Float32:
    return np.zeros((0, 4), np.float32)


class Detection(NamedTuple):
    """One object that was found: x1, y1, x2, y2 in image pixels, score in 0..1, label and name of its class."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


class Origin(Protocol):
    """Where detections come from: the classes of the detector and the image."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The detector's classes in label order."""

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The names of the objects' key points, none without key points."""

    def plot(self, found: Detections, image: Any = None) -> NDArray[np.uint8]:
        """Return the image, or the one that is given, (H,W,3) BGR, with the detections drawn."""

    def png(self, found: Detections) -> bytes:
        """Return a PNG of `plot`, of a size for the screen."""


@dataclass(frozen=True, repr=False)
class Detections(_Rows):
    """What a detector found in one image, strongest first.

    `boxes_xyxy` (N,4) float32 in original image pixels, `scores` (N,) float32 in 0..1, `labels` (N,) int64, perhaps
    `keypoints` (N,P,2) float32, x and y in image pixels. `values` holds (N,...) float32 of further heads by name.
    An integer index and iteration give `Detection`s; a slice, a mask or indices give `Detections`.
    """

    boxes_xyxy: Float32 = field(default_factory=_no_boxes)
    scores: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    keypoints: Float32 | None = None
    values: Mapping[str, Float32] = field(default_factory=dict)
    origin: Origin | None = field(default=None, compare=False, metadata={"whole": True})
    """what a detector adds, so that classes have names and the image can be drawn"""

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        if not isinstance(index, int | np.integer):
            return self.select(index)
        x1, y1, x2, y2 = map(float, self.boxes_xyxy[index])
        label = int(self.labels[index])
        return Detection((x1, y1, x2, y2), float(self.scores[index]), label, self._name(label))

    def __repr__(self) -> str:
        counts = Counter(self.names).most_common()
        return f"Detections({', '.join(f'{count} {name}' for name, count in counts) or 'none'})"

    def __str__(self) -> str:
        rows = (f"  {d.score:.2f}  {d.name}  ({', '.join(f'{v:.0f}' for v in d.box)})" for d in self[:20])
        return "\n".join([repr(self), *rows, *([f"  and {len(self) - 20} more"] if len(self) > 20 else [])])

    def _repr_png_(self) -> bytes | None:
        return self.origin.png(self) if self.origin else None

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes of the detector in label order. Raises ConfigError when no detector made these detections."""
        if self.origin is None:
            raise ConfigError("these detections do not come from a detector, so their classes and image are unknown")
        return self.origin.categories

    @property
    def names(self) -> list[str]:
        """The class of each detection by name, `class N` where no detector says what a label is called."""
        return [self._name(int(label)) for label in self.labels]

    def _name(self, label: int) -> str:
        return self.origin.categories[label].name if self.origin else f"class {label}"

    def above(self, score: float) -> Detections:
        """Return the detections whose score is at least `score`."""
        return self.select(self.scores >= score)

    def filter(self, *names: str, score: float = 0.0) -> Detections:
        """Return the detections of these classes, all when none is named, whose score is at least `score`.

        Raises ConfigError for a class that the detector does not know.
        """
        known = [category.name for category in self.categories] if names else []
        for name in names:
            if name not in known:
                raise ConfigError(f"the detector has no class {name!r}", nearest=nearest(str(name), known))
        wanted = [label for label, name in enumerate(known) if name in names]
        strong = self.above(score)
        return strong.select(np.isin(strong.labels, wanted)) if names else strong

    def plot(self, image: Any = None) -> NDArray[np.uint8]:
        """Return the image (H,W,3) BGR uint8 with boxes, names and scores; another one than was shown if given.

        Raises ConfigError when no detector made these detections, DataError when its file is gone.
        """
        self.categories  # noqa: B018 - raises
        assert self.origin is not None
        return self.origin.plot(self, image)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections` with class names in its data. Raises MissingExtra without the package."""
        supervision = _package("supervision")
        names: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        if self.keypoints is not None:
            names["keypoints"] = self.keypoints
        return supervision.Detections(self.boxes_xyxy, confidence=self.scores, class_id=self.labels, data=names)

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Return COCO's results: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score`.

        With key points also `keypoints`: x, y, 1 of each.
        """
        ids = [category.id for category in self.categories]
        return [
            {
                "image_id": image_id,
                "category_id": ids[one.label],
                "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
                "score": one.score,
                **({} if self.keypoints is None else {"keypoints": flat_points(self.keypoints[i])}),
            }
            for i, one in enumerate(self)
        ]

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`: x1, y1, x2, y2, score, label, name. Raises MissingExtra without the package."""
        columns = ["x1", "y1", "x2", "y2", "score", "label", "name"]
        return _package("pandas").DataFrame([(*d.box, d.score, d.label, d.name) for d in self], columns=columns)

    def to_dicts(
        self, categories: tuple[Category, ...] | None = None, keypoint_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return one JSON-ready dict a detection: `box` (xyxy pixels), `score`, `category_id`, `category_name`.

        With key points also `keypoints`: x, y by the name of the point. Categories and names are the detector's unless
        given.
        """
        categories = self.categories if categories is None else categories
        if keypoint_names is None:
            keypoint_names = self.origin.keypoint_names if self.origin else ()
        entries = []
        for i, label in enumerate(self.labels):
            more = {name: np.round(v[i].astype(np.float64), 4).tolist() for name, v in self.values.items()}
            if self.keypoints is not None:
                points = self.keypoints[i].astype(np.float64).round(2).tolist()
                more["keypoints"] = dict(zip(keypoint_names, points, strict=True)) if keypoint_names else points
            entries.append(
                {
                    "box": [round(float(v), 2) for v in self.boxes_xyxy[i]],
                    "score": round(float(self.scores[i]), 5),
                    "category_id": categories[label].id,
                    "category_name": categories[label].name,
                    **more,
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


class Share(NamedTuple):
    """The part of a work that one of several processes does: `rank` of `ranks`, from 0.

    `gather` returns the processes' values in their order, in each of them; all call it the same number of times.
    """

    rank: int = 0
    ranks: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]
