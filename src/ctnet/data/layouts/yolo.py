"""YOLO: a data.yaml, and for every image a text file of labels with normalised boxes, perhaps with key points."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctnet.data.box_form import from_centres, to_centres
from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.image_size import read_image_size
from ctnet.data.layouts.coco import is_integer
from ctnet.data.layouts.data_yaml import find_data_yaml, read_data_yaml
from ctnet.data.layouts.keypoints import pairs_of, read_category, stacked_points, unnamed_schema
from ctnet.data.layouts.layout import SplitFiles, Tolerate, Writer, by_split
from ctnet.data.layouts.names import Folders, ImageFinder, files_below, plain_path, spelling
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import read_file, write_file
from ctnet.limits import TEXT_BYTES
from ctnet.types import AnnotationSet, Category, Float32, ImageRecord, Int64, KeypointSchema

_SPLITS = ("train", "val", "valid", "validation", "test")
_SHOWN = 20  # labels named in an error
_MOST_POINTS = 1000
_REACH = 1.0  # of labelled points beyond the image; what is farther is in pixels
_SLACK = 0.01
"""coordinates may pass 0 and 1 by so much: tools round"""


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits that a data.yaml with class names describes."""
    file = find_data_yaml(path)
    content = read_data_yaml(file) if file else {}
    if file is None or "names" not in content:
        return {}
    splits = by_split((name, SplitFiles(file)) for name in _SPLITS if content.get(name))
    if not splits:
        raise DataError("the data set has no split", file=file, expected="train: FOLDER, val: FOLDER")
    return splits


def read_yolo(data_yaml: Path, split: str, tolerate: Tolerate | None = None, key: str = "") -> AnnotationSet:
    """Return one split; category ids are the label numbers of the files, images and boxes count from 1.

    An image without a label file has no objects. Raises DataError, naming file and line, for what cannot be
    understood: labels that `names` does not have, another number of numbers, coordinates that are no
    fractions. With `tolerate` such lines, label files and images are left out and it gets each error. `key` is
    the split's name in the file where that differs.
    """
    tolerant = Tolerant(tolerate)
    content = read_data_yaml(data_yaml)
    categories = _categories(data_yaml, content.get("names"))
    label_of = {category.id: label for label, category in enumerate(categories)}
    points = _read_shape(data_yaml, content)
    records, labels_of = Records(), _LabelFiles()
    for image_id, path in enumerate(_images(data_yaml, content, key or split), start=1):
        size = tolerant(partial(read_image_size, path))
        if size is None:
            continue
        labels, centres, keypoints = _read_labels(labels_of(path), label_of, points, tolerant)
        keypoints = None if keypoints is None else keypoints * np.array([size[1], size[0], 1], np.float32)
        records.add(path, size, from_centres(centres, size), labels, image_id, keypoints)
    schema = points.schema if points else None
    return AnnotationSet(data_yaml, split, categories, tuple(records.images), labels_of.sought(), schema)


def _categories(data_yaml: Path, names: Any) -> tuple[Category, ...]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(
        is_integer(key) and isinstance(name, str) and name.strip() for key, name in names.items()
    ):
        raise DataError(
            "names is malformed", file=data_yaml, expected="a list, or number: name", got=reprlib.repr(names)
        )
    return tuple(Category(key, names[key]) for key in sorted(names))


class _Points(NamedTuple):
    """The key points of a line: what they are, and how many numbers each has, 2 or 3."""

    schema: KeypointSchema
    numbers: int


def _read_shape(data_yaml: Path, content: Mapping[str, Any]) -> _Points | None:
    """Return the key points that `kpt_shape`, `flip_idx` and `kpt_names` describe, None without any.

    `skeleton`, which counts from 0, and `sigmas` are ctnet's own.
    """
    shape, mirrored = content.get("kpt_shape"), content.get("flip_idx")
    if shape is None:
        return None
    try:
        if not (
            isinstance(shape, list) and len(shape) == 2 and all(map(is_integer, shape))
            and 0 < shape[0] <= _MOST_POINTS and shape[1] in (2, 3)
        ):  # fmt: skip
            raise ValueError(f"kpt_shape: [number of points, 2 or 3], got {shape!r:.80}")
        if mirrored is not None and not (
            isinstance(mirrored, list) and len(mirrored) == shape[0] and all(map(is_integer, mirrored))
        ):
            raise ValueError(f"flip_idx: {shape[0]} indices, one for each point of kpt_shape, got {mirrored!r:.80}")
        pairs = None if mirrored is None else pairs_of(mirrored)
        schema = _named_schema(content, shape[0], mirrored)
    except ValueError as error:
        raise DataError("the key points are malformed", file=data_yaml, expected=error) from None
    return _Points(schema if pairs is None else replace(schema, flip_pairs=pairs), shape[1])


def _named_schema(content: Mapping[str, Any], count: int, mirrored: list[int] | None) -> KeypointSchema:
    names = content.get("kpt_names")
    lists = list(names.values()) if isinstance(names, dict) else [names]
    if names is None:
        classes = content.get("names")
        only = [*(classes.values() if isinstance(classes, dict) else classes or [])] if classes else []
        return unnamed_schema(count, str(only[0]) if len(only) == 1 else "", mirrored)
    if any(one != lists[0] for one in lists):
        raise ValueError("kpt_names: the same names for every class")
    entry = {"keypoints": lists[0], "sigmas": content.get("sigmas")}
    edges = content.get("skeleton") or []
    if isinstance(edges, list):  # counts from 0
        edges = [[end + 1 if is_integer(end) else end for end in e] if isinstance(e, list) else e for e in edges]
    schema = read_category({**entry, "skeleton": edges})
    if schema is None or len(schema.names) != count:
        raise ValueError(f"kpt_names: {count} names, one for each point of kpt_shape")
    return schema


def _images(data_yaml: Path, content: dict[str, Any], split: str) -> list[Path]:
    """Return the images of a split, which is a folder, a text file that lists them, or several of those."""
    entry = content.get(split)
    entries: list[Any] = entry if isinstance(entry, list) else [entry]
    if not entry or not all(isinstance(text, str) for text in entries):
        raise DataError(f"there is no split {split!r}", file=data_yaml, got=entry, expected="a folder of images")
    # `path` is relative to the YAML file for some tools and to the working folder for others
    stated = plain_path(str(content.get("path") or "."))
    roots = [*dict.fromkeys((data_yaml.parent / stated, data_yaml.parent))]
    folders = Folders()
    images: list[Path] = []
    for text in map(plain_path, entries):
        # Some exporters write ../train/images although the folder lies beside the YAML file.
        tried = [(root, name) for root in roots for name in dict.fromkeys((text, text.removeprefix("../")))]
        source = next((path for root, name in tried if (path := folders.entry(root, name))), None)
        if source is None:
            sought = ", ".join(str(root / name) for root, name in tried)
            raise DataError("the images are not at the path in the file", file=data_yaml, got=text, sought=sought)
        if source.is_dir():
            images += files_below(source, IMAGE_SUFFIXES, nested=True)
        else:
            find_image = ImageFinder((source.parent, *roots))
            lines = _lines(source, "the list of images")
            images += [find_image(line.strip()) for line in lines if line.strip()]
    return images


class _LabelFiles:
    """Finds the label file of each image: in the folder `labels` in place of one called `images`, or beside it."""

    def __init__(self) -> None:
        self._folders = Folders()
        self._of: dict[Path, list[Path]] = {}
        self._found = False

    def __call__(self, image: Path) -> Path | None:
        """Return the label file, None when the image has none."""
        if image.parent not in self._of:
            self._of[image.parent] = self._label_folders(image.parent)
        found = (self._folders.with_stem(folder, image.stem, (".txt",)) for folder in self._of[image.parent])
        file = next((file for file in found if file), None)
        self._found = self._found or file is not None
        return file

    def sought(self) -> str:
        """Return in which folders there is not a single label file, empty when there is one."""
        places = dict.fromkeys(_expected_folder(folder) for folder in self._of)
        return "" if self._found else ", ".join(f"{place}/*.txt" for place in places)

    def _label_folders(self, folder: Path) -> list[Path]:
        """Return the folders that may hold the labels of the images in `folder`, the innermost `images` first."""
        found = []
        for i in reversed(range(len(folder.parts))):
            if spelling(folder.parts[i]) == "images":
                beside = self._folders.entry(Path(*folder.parts[:i]), "labels")
                rest = "/".join(folder.parts[i + 1 :])
                labels = self._folders.entry(beside, rest) if beside and rest else beside
                found += [labels] if labels else []
        return [*found, folder]


def _expected_folder(folder: Path) -> Path:
    """Return where labels of images in `folder` belong: `labels` in place of the innermost `images`, else there."""
    for i in reversed(range(len(folder.parts))):
        if spelling(folder.parts[i]) == "images":
            return Path(*folder.parts[:i], "labels", *folder.parts[i + 1 :])
    return folder


def _read_labels(
    file: Path | None, label_of: dict[int, int], points: _Points | None, tolerant: Tolerant
) -> tuple[Int64, Float32, Float32 | None]:
    """Return labels (N,), boxes (N,4) as normalised centre x, centre y, width, height, and points (N,P,3) likewise."""
    lines = tolerant(partial(_lines, file, "the labels")) if file else None
    read = (
        tolerant(partial(_read_line, file or Path(), number, line, label_of, points))
        for number, line in enumerate(lines or [], start=1)
        if line.strip()
    )
    rows = [row for row in read if row is not None]
    labels = np.array([label for label, *_ in rows], np.int64)
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4)
    return labels, boxes, stacked_points([p for *_, p in rows], points.schema if points else None)


def _lines(file: Path, what: str) -> list[str]:
    try:
        text = read_file(file, TEXT_BYTES).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("a NUL character")
        return text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {what}", file=file, got=getattr(error, "strerror", None) or error) from None


def _read_line(
    file: Path, number: int, line: str, label_of: dict[int, int], points: _Points | None
) -> tuple[int, list[float], Float32 | None]:
    def refuse(expected: str) -> DataError:
        return DataError(f"{file.name}:{number} is malformed", file=f"{file}:{number}", expected=expected, got=line)

    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        raise refuse("numbers: label, centre x, centre y, width, height") from None
    stated = points.numbers * len(points.schema.names) if points else 0
    if len(values) not in (5, 5 + stated):
        if points:
            shape = f"{len(points.schema.names)} points of {points.numbers} (kpt_shape)"
            raise refuse(f"{5 + stated} numbers: label, box and {shape}, or five without points, not {len(values)}")
        more = "polygons are not read; key points need kpt_shape in the YAML"
        raise refuse(f"five numbers: label, centre x, centre y, width, height ({more})")
    label, *box = values[:5]
    if label not in label_of:
        few = ", ".join(str(key) for key in islice(label_of, _SHOWN)) + (", ..." if len(label_of) > _SHOWN else "")
        raise refuse(f"a label that names has: {few}")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in box):
        pixels = "; these look like pixels" if max(box) > 1 + _SLACK else ""
        raise refuse(f"fractions of the image between 0 and 1{pixels}")
    if points is None or len(values) == 5:
        return label_of[int(label)], box, None
    rows = np.array(values[5:], np.float32).reshape(-1, points.numbers)
    if points.numbers == 2:  # a point that is not labelled lies in the corner, or before it
        rows = np.column_stack([rows, np.where((rows == 0).all(1) | (rows < 0).any(1), 0, 2)])
    seen = rows[rows[:, 2] > 0]
    if not (np.isfinite(rows).all() and (seen[:, :2] >= -_REACH).all() and (seen[:, :2] <= 1 + _REACH).all()):
        raise refuse("key points in fractions of the image, and visibilities 0, 1 or 2")
    return label_of[int(label)], box, rows.astype(np.float32)


def _write_splits(sets: Mapping[str, AnnotationSet], folder: Path) -> dict[str, Path]:
    """Write data.yaml and the labels of every split; labels count from 0 in the order of the categories."""
    schema = next((annotation_set.keypoints for annotation_set in sets.values() if annotation_set.keypoints), None)
    for split, annotation_set in sets.items():
        for image in annotation_set.images:
            rows = zip(image.labels.tolist(), _fractions(image, schema), strict=True)
            lines = [" ".join((str(label), *(f"{v:.8g}" for v in row))) + "\n" for label, row in rows]
            write_file(folder / "labels" / split / f"{image.path.stem}.txt", "".join(lines).encode())
    file = folder / "data.yaml"
    names = dict(enumerate(category.name for category in next(iter(sets.values())).categories))
    splits = [f"{split}: images/{split}" for split in sets]
    named = [f"  {label}: {json.dumps(name)}" for label, name in names.items()]  # JSON's strings are YAML's
    write_file(file, "\n".join([*splits, "names:", *named, *_describe(schema, names), ""]).encode())
    return dict.fromkeys(sets, file)


def _fractions(image: ImageRecord, schema: KeypointSchema | None) -> Any:
    """Return the numbers of each object's line but the label."""
    boxes = to_centres(image.boxes_xyxy, (image.height, image.width))
    if schema is None:
        return boxes.tolist()
    points = np.zeros((len(boxes), len(schema.names), 3)) if image.keypoints is None else image.keypoints
    scale = np.array([image.width, image.height, 1], np.float64)
    return np.column_stack([boxes, (points / scale).reshape(len(boxes), -1)]).tolist()


def _describe(schema: KeypointSchema | None, names: Mapping[int, str]) -> list[str]:
    """Return the lines of a data.yaml about key points, as `_read_shape` reads them."""
    if schema is None:
        return []
    sigmas = [] if schema.sigmas is None else [f"sigmas: {list(schema.sigmas)}"]
    return [
        f"kpt_shape: [{len(schema.names)}, 3]",
        f"flip_idx: {schema.mirrored()}",
        "kpt_names:", *(f"  {label}: {json.dumps(schema.names)}" for label in names),
        f"skeleton: {json.dumps(schema.skeleton)}", *sigmas,
    ]  # fmt: skip


WRITER = Writer("images/{split}", _write_splits, keypoints=True)
