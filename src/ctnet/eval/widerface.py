"""The WIDER FACE protocol: average precision of faces in the settings easy, medium and hard.

Yang et al., "WIDER FACE: A Face Detection Benchmark", 2016, and its published evaluation code. Its particulars:
scores are scaled to 0..1 over the whole set; a box of width `w` covers `w + 1` pixels; every face is compared in every
setting, but faces outside the setting are ignored: a detection of one is neither right nor wrong; precision and recall
are taken at 1000 equally spaced scores.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctnet.errors import DataError, listed
from ctnet.files import path_component, read_file, write_file
from ctnet.limits import TEXT_BYTES, Limit
from ctnet.types import AnnotationSet, Category, Detections

Float64 = NDArray[np.float64]
SETTINGS = ("easy", "medium", "hard")
THRESHOLDS = 1000
GROUND_TRUTH = "wider_face_val.mat"

MAT_BYTES = Limit(256 << 20, "bytes in a .mat file")

Image = tuple[str, str]
"""event and name of an image, such as ("0--Parade", "0_Parade_marchingband_1_465")"""


@dataclass(frozen=True)
class WiderFaces:
    """Annotated faces: of each image the boxes (N,4) float64 x, y, width, height and, by setting, which count (N,)."""

    images: tuple[Image, ...]
    boxes_xywh: tuple[Float64, ...]
    counted: Mapping[str, tuple[NDArray[np.bool_], ...]]


class WiderResult(NamedTuple):
    """AP (0..1) by setting, NaN where nothing was found or nothing counts; images without a result; faces by setting.

    The faces are those that count.
    """

    ap: Mapping[str, float]
    missing: tuple[Image, ...]
    faces: Mapping[str, int]


def read_ground_truth(folder: Path) -> WiderFaces:
    """Return the faces in a folder with `wider_face_val.mat` and `wider_{easy,medium,hard}_val.mat`.

    Raises DataError when a file is missing or is not WIDER FACE's.
    """
    path = folder / GROUND_TRUTH
    content = _read_mat(path, ("event_list", "file_list", "face_bbx_list"))
    with _explained(path):
        events = [path_component(str(event[0][0])) for event in content["event_list"]]
        names = [[path_component(str(name[0][0])) for name in files[0]] for files in content["file_list"]]
        boxes = [[_boxes(image[0]) for image in event[0]] for event in content["face_bbx_list"]]
        images = tuple((event, name) for event, files in zip(events, names, strict=True) for name in files)
        flat = tuple(image for event in boxes for image in event)
        if len(flat) != len(images):
            raise ValueError(f"{len(images)} images, boxes of {len(flat)}")
    counted = {setting: _counted(folder / f"wider_{setting}_val.mat", flat) for setting in SETTINGS}
    return WiderFaces(images, flat, counted)


def _counted(path: Path, boxes: Sequence[Float64]) -> tuple[NDArray[np.bool_], ...]:
    content = _read_mat(path, ("gt_list",))
    with _explained(path):
        chosen = [np.asarray(image[0], np.int64).reshape(-1) - 1 for event in content["gt_list"] for image in event[0]]
        rows = []
        for index, faces in zip(chosen, boxes, strict=True):
            if len(index) and not 0 <= index.min() <= index.max() < len(faces):
                raise ValueError("it names faces that an image does not have")
            row = np.zeros(len(faces), bool)
            row[index] = True
            rows.append(row)
    return tuple(rows)


def _boxes(array: Any) -> Float64:
    boxes = np.asarray(array, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes of shape {boxes.shape}")
    return boxes


_MOST_UNPACKED = 1032  # what deflate makes of a byte at most


def _read_mat(path: Path, keys: Sequence[str]) -> Mapping[str, Any]:
    from scipy.io import loadmat, whosmat

    if not path.is_file():
        raise DataError(
            "the WIDER FACE ground truth is incomplete", missing=path,
            hint=f"the folder needs {GROUND_TRUTH} and wider_easy_val.mat, wider_medium_val.mat, wider_hard_val.mat",
        )  # fmt: skip
    with _explained(path), warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy warns of a damaged file and goes on
        raw = read_file(path, MAT_BYTES)
        for name, shape, _ in whosmat(io.BytesIO(raw)):
            if math.prod(shape) > len(raw) * _MOST_UNPACKED:
                raise ValueError(f"{name} of {' x '.join(map(str, shape))} values in {len(raw)} bytes")
        content: Mapping[str, Any] = loadmat(io.BytesIO(raw), variable_names=list(keys))
        absent = [key for key in keys if key not in content]
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
    return content


class _explained:
    """Raises DataError for whatever a file that is not WIDER FACE's leads to: scipy has many answers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise DataError(
                "the file is not a WIDER FACE ground truth",
                file=self._path,
                got=f"{type(error).__name__}: {error}"[:200],
            ) from None


def read_results(folder: Path, images: Sequence[Image]) -> dict[Image, Float64]:
    """Return the predictions (N,5) x, y, width, height, score of each image that has a file `EVENT/NAME.txt`.

    A file holds the name, the number of faces, and a line for each face; the number is not relied on. Raises DataError
    for a line that is not five numbers, and when no image has a file.
    """
    found = {}
    for event, name in images:
        path = folder / event / f"{name}.txt"
        if path.is_file():
            found[event, name] = _read_result(path)
    if not found:
        raise DataError(
            "no image has a result", folder=folder, looked_for=f"{'/'.join(images[0])}.txt" if images else None
        )
    return found


def _read_result(path: Path) -> Float64:
    try:
        lines = read_file(path, TEXT_BYTES).decode("utf-8", "replace").splitlines()[2:]
    except OSError as error:
        raise DataError("cannot read a result", file=path, got=error.strerror) from None
    rows = []
    for number, line in enumerate(lines, 3):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.split()]
        except ValueError:
            row = []
        if len(row) != 5 or not np.isfinite(row).all():
            raise DataError("a face is five numbers: x y width height score", file=path, line=number, got=line[:80])
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 5)


def write_result(folder: Path, image: Image, rows: Float64) -> None:
    """Write the predictions (N,5) of an image as WIDER FACE has them, strongest first."""
    ordered = rows[np.argsort(-rows[:, 4], kind="stable")]
    text = "".join("{:.3f} {:.3f} {:.3f} {:.3f} {:.6f}\n".format(*row) for row in ordered)
    write_file(folder / image[0] / f"{image[1]}.txt", f"{image[1]}\n{len(ordered)}\n{text}".encode())


def widerface_ap(
    faces: WiderFaces, predictions: Mapping[Image, Float64], iou: float = 0.5, *, skip_missing: bool = False
) -> WiderResult:
    """Return the AP of predictions (N,5) x, y, width, height, score in each setting.

    A face is found by the strongest prediction that overlaps it most and by at least `iou` (the benchmark's 0.5; many
    ports were measured at 0.4). Images without an entry in `predictions` are returned; their faces are missed, or, with
    `skip_missing`, do not count, as in the code of those ports. Order and scale of the scores do not matter.
    """
    missing = tuple(image for image in faces.images if image not in predictions)
    hits = _Hits.collect(faces, predictions, iou, skip_missing=skip_missing)
    present = [i for i, image in enumerate(faces.images) if image in predictions or not skip_missing]
    ap, count = {}, {}
    for setting, rows in faces.counted.items():
        flags = np.concatenate([rows[index] for index in present] or [np.zeros(0, bool)])
        count[setting] = int(flags.sum())
        ap[setting] = hits.average_precision(flags, count[setting])
    return WiderResult(ap, missing, count)


@dataclass(frozen=True)
class _Hits:
    """Each prediction on an image with faces: score in 0..1, the face it overlaps (-1: none), if it is the first."""

    scores: Float64
    face: NDArray[np.int64]
    first: NDArray[np.bool_]

    @classmethod
    def collect(
        cls, faces: WiderFaces, predictions: Mapping[Image, Float64], iou: float, *, skip_missing: bool
    ) -> _Hits:
        everything = [rows[:, 4] for rows in predictions.values() if len(rows)]
        low = min((float(scores.min()) for scores in everything), default=0.0)
        spread = max((float(scores.max()) for scores in everything), default=0.0) - low
        parts = list(_matches(faces, predictions, iou, skip_missing=skip_missing))
        if not parts:
            return cls(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))
        scores, face, first = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls((scores - low) / spread if spread > 0 else np.ones_like(scores), face, first)

    def average_precision(self, counted: NDArray[np.bool_], faces: int) -> float:
        """Return the AP in a setting in which these faces count, `faces` in number."""
        if faces == 0 or len(self.scores) == 0:
            return float("nan")
        of_setting = np.concatenate([counted, [True]])[self.face]  # a prediction without a face counts as wrong
        order = np.argsort(-self.scores, kind="stable")
        proposals = np.cumsum(of_setting[order])
        recalled = np.cumsum((of_setting & self.first)[order])
        thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
        taken = np.searchsorted(-self.scores[order], -thresholds, side="right")
        some = taken > 0
        proposals, recalled = proposals[taken[some] - 1], recalled[taken[some] - 1]
        valid = proposals > 0
        return _area(recalled[valid] / faces, recalled[valid] / proposals[valid])


def _matches(
    faces: WiderFaces, predictions: Mapping[Image, Float64], iou: float, *, skip_missing: bool
) -> Iterator[tuple[Float64, NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield scores, indices of overlapped faces and first hits of each image that has both faces and predictions."""
    start = 0
    for image, boxes in zip(faces.images, faces.boxes_xywh, strict=True):
        rows = predictions.get(image)
        if rows is None and skip_missing:
            continue
        if rows is not None and len(rows) and len(boxes):
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            overlap = overlaps(rows[:, :4], boxes)
            best = overlap.argmax(1)
            face = np.where(overlap[np.arange(len(rows)), best] >= iou, best, -1)
            first = np.zeros(len(rows), bool)
            first[np.unique(face, return_index=True)[1]] = True
            yield rows[:, 4], np.where(face >= 0, face + start, -1), first & (face >= 0)
        start += len(boxes)


def overlaps(predicted: Float64, faces: Float64) -> Float64:
    """Return the IoU (N,M) of boxes x, y, width, height by the protocol's rule that both edges belong to a box."""
    low_a, low_b = predicted[:, None, :2], faces[None, :, :2]
    high_a, high_b = low_a + predicted[:, None, 2:], low_b + faces[None, :, 2:]
    shared = (np.minimum(high_a, high_b) - np.maximum(low_a, low_b) + 1).clip(0).prod(-1)
    area_a, area_b = (predicted[:, None, 2:] + 1).prod(-1), (faces[None, :, 2:] + 1).prod(-1)
    iou: Float64 = shared / (area_a + area_b - shared)
    return iou


def _area(recall: Float64, precision: Float64) -> float:
    """Return the area under the curve with precision made to fall, over all points (Pascal VOC 2010)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * envelope[steps + 1]).sum())


PRESETS: dict[str, dict[str, Any]] = {
    "fixed": {"image_size": "800", "keep_res": False, "flip": False, "scales": "1", "nms": "none"},
    "original": {"keep_res": True, "flip": False, "scales": "1", "nms": "none"},
    "multiscale": {"keep_res": True, "flip": True, "scales": "0.8,1,1.2,1.4", "nms": "soft"},
}
"""test settings under which CenterFace was published: fitted into 800 x 800; at the image's own size; at four sizes,
each with its mirror image"""


def find_images(annotation_set: AnnotationSet, faces: WiderFaces) -> tuple[AnnotationSet, dict[int, Image]]:
    """Return those images of a set that the ground truth has, and what it calls them, by image id.

    They are found by folder and name, else by name alone. Raises DataError when the ground truth has none of them.
    """
    by_name: dict[str, list[Image]] = {}
    for image in faces.images:
        by_name.setdefault(image[1], []).append(image)
    known, found = set(faces.images), {}
    for record in annotation_set.images:
        here = (record.path.parent.name, record.path.stem)
        named = [here] if here in known else by_name.get(record.path.stem, [])
        if len(named) == 1:
            found[record.id] = named[0]
    if not found:
        first = annotation_set.images[0].path if annotation_set.images else None
        raise DataError(
            "the ground truth has none of the images", data=annotation_set.source, first=first,
            expected=f"images such as {'/'.join(faces.images[0])}.jpg" if faces.images else "images",
        )  # fmt: skip
    images = tuple(record for record in annotation_set.images if record.id in found)
    return replace(annotation_set, images=images), found


def face_label(categories: Sequence[Category]) -> int:
    """Return the label of faces: the class `face`, or the only one. Raises DataError."""
    named = [label for label, category in enumerate(categories) if category.name.strip().casefold() == "face"]
    if len(named) == 1 or len(categories) == 1:
        return named[0] if named else 0
    raise DataError("the detector has no class face", classes=listed([category.name for category in categories]))


def prediction_rows(found: Detections, label: int) -> Float64:
    """Return the detections of a label as (N,5) x, y, width, height, score."""
    faces = found.select(found.labels == label)
    boxes = faces.boxes_xyxy.astype(np.float64)
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], faces.scores.astype(np.float64)])
