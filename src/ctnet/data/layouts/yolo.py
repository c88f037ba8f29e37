"""YOLO: a data.yaml, and for every image a text file of labels with normalised boxes, perhaps with key points."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.box_form import from_centres, to_centres
from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.layouts.coco import is_integer
from ctnet.data.layouts.data_yaml import find_data_yaml, read_data_yaml
from ctnet.data.layouts.keypoints import keypoint_notes, stacked_points
from ctnet.data.layouts.layout import Repairable, SplitFiles, Tolerate, Writer, by_split
from ctnet.data.layouts.names import Folders, ImageFinder, files_below, plain_path, spelling
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.text import read_text
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.data.layouts.yolo_points import YoloPoints, describe, read_shape
from ctnet.errors import DataError
from ctnet.files import exists, write_file
from ctnet.types import AnnotationSet, Category, Float32, ImageRecord, Int64, KeypointSchema

_SPLITS = ("train", "val", "valid", "validation", "test")
_SHOWN = 20  # labels named in an error
Row = tuple[int, list[float], Float32 | None]
ReadLine = Callable[[Path, int, str], Row]
_SLACK = 0.01
"""coordinates may pass 0 and 1 by so much: tools round"""


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits that a data.yaml with class names describes."""
    file = find_data_yaml(path)
    content = read_data_yaml(file) if file else {}
    if file is None or "names" not in content:
        return {}
    others = (name for name, value in content.items() if name not in (*_SPLITS, "path") and _is_source(file, value))
    splits = by_split((name, SplitFiles(file)) for name in (*_SPLITS, *others) if content.get(name))
    if not splits:
        raise DataError("the data set has no split", file=file, expected="train: FOLDER, val: FOLDER")
    return splits


def _is_source(file: Path, value: object) -> bool:
    """Return whether the value of a key that is none of the usual splits names images beside the YAML file."""
    return isinstance(value, str) and "\0" not in value and value.startswith("images/") and exists(file.parent / value)


def read_yolo(
    data_yaml: Path,
    split: str,
    tolerate: Tolerate | None = None,
    key: str = "",
    content: dict[str, Any] | None = None,
) -> AnnotationSet:
    """Return one split; category ids are the label numbers of the files, images and boxes count from 1.

    An image without a label file has no objects. Raises DataError, naming file and line, for what cannot be
    understood: labels that `names` does not have, coordinates that are no fractions, another number of key points. Of
    polygons, rotated boxes and boxes with key points that `kpt_shape` does not describe the box is read. With
    `tolerate` such lines and label files are left out and it gets each error. `key` is the split's name in the file
    where that differs; `content` is the file's if it is no YAML.
    """
    tolerant = Tolerant(tolerate)
    content = read_data_yaml(data_yaml) if content is None else content
    categories = _categories(data_yaml, content.get("names"))
    label_of = {category.id: label for label, category in enumerate(categories)}
    points = read_shape(data_yaml, content)
    records, labels_of = Records(), _LabelFiles()
    listed = _images(data_yaml, content, key or split, tolerant)
    read_line = partial(_read_line, label_of=label_of, points=points, tolerant=tolerant)
    for image_id, path in enumerate(listed, start=1):
        size = records.size_of(path, image_id)
        if size is None:
            continue
        labels, centres, places = _read_labels(labels_of(path), tolerant, partial(read_line, size_hw=size), points)
        places = None if places is None else places * np.array([size[1], size[0], 1], np.float32)
        records.add(path, size, from_centres(centres, size), labels, image_id, keypoints=places)
    schema = points.schema if points else None
    notes = (*_miscounted(content), *labels_of.shared(), *keypoint_notes(schema))
    images = tuple(records.images)
    return AnnotationSet(data_yaml, split, categories, images, labels_of.sought(), notes=notes, keypoints=schema)


def _miscounted(content: dict[str, Any]) -> list[str]:
    count, names = content.get("nc"), content["names"]
    return [f"nc is {count}, but names has {len(names)}"] if is_integer(count) and count != len(names) else []


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


def _images(data_yaml: Path, content: dict[str, Any], split: str, tolerant: Tolerant) -> list[Path]:
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
            lines = read_text(source, "the list of images", tolerant.tolerate).splitlines()
            images += [find_image(line.strip()) for line in lines if line.strip()]
    return images


class _LabelFiles:
    """Finds the label file of each image: in the folder `labels` in place of one called `images`, or beside it."""

    def __init__(self) -> None:
        self._folders = Folders()
        self._of: dict[Path, list[Path]] = {}
        self._used: dict[Path, list[str]] = {}

    def __call__(self, image: Path) -> Path | None:
        """Return the label file, None when the image has none."""
        if image.parent not in self._of:
            self._of[image.parent] = self._label_folders(image.parent)
        found = (self._folders.with_stem(folder, image.stem, (".txt",)) for folder in self._of[image.parent])
        file = next((file for file in found if file), None)
        if file:
            self._used.setdefault(file, []).append(image.name)
        return file

    def shared(self) -> list[str]:
        """Return which files have the labels of several images, in sentences."""
        users = ((file, names) for file, names in self._used.items() if len(names) > 1)
        return [f"{' and '.join(names)} have the same labels, {file.name}" for file, names in users]

    def sought(self) -> str:
        """Return in which folders there is not a single label file, empty when there is one."""
        places = dict.fromkeys(_expected_folder(folder) for folder in self._of)
        return "" if self._used else ", ".join(f"{place}/*.txt" for place in places)

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


def _box_of(numbers: list[float], keypoint_columns: int) -> list[float] | None:
    """Return centre x, centre y, width and height in the numbers behind a label, None for numbers that hold no box.

    They are the box, the box and key points (x, y and a visibility of 0, 1 or 2, or as many as are described), or the
    corners of a polygon or rotated box, whose bounds are returned.
    """
    points = numbers[4:]
    visible = points[2::3] if len(points) % 3 == 0 else []
    if not points or len(points) == keypoint_columns or (2 in visible and {*visible} <= {0, 1, 2}):
        return numbers[:4] if len(numbers) >= 4 else None
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]


def _read_labels(
    file: Path | None, tolerant: Tolerant, read_line: ReadLine, points: YoloPoints | None
) -> tuple[Int64, Float32, Float32 | None]:
    """Return labels (N,), boxes (N,4) as normalised centre x, centre y, width, height, and points (N,P,3) likewise."""
    text = tolerant(partial(read_text, file, "the labels", tolerant.tolerate)) if file else None
    read = (
        tolerant(partial(read_line, file or Path(), number, line))
        for number, line in enumerate((text or "").splitlines(), start=1)
        if line.strip()
    )
    rows = [row for row in read if row is not None]
    labels = np.array([label for label, *_ in rows], np.int64)
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4)
    return labels, boxes, stacked_points([places for *_, places in rows], points.schema if points else None)


def _read_line(
    file: Path, number: int, line: str, label_of: dict[int, int], size_hw: tuple[int, int], tolerant: Tolerant,
    points: YoloPoints | None,
) -> Row:  # fmt: skip
    facts = {"file": f"{file}:{number}", "got": line}

    def refuse(expected: str) -> DataError:
        return DataError(f"{file.name}:{number} is malformed", expected=expected, **facts)

    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        raise refuse("numbers: label, centre x, centre y, width, height") from None
    columns = points.columns if points else 0
    if points and len(values) not in (5, 5 + columns):
        shape = f"{len(points.schema.names)} points of {points.numbers} (kpt_shape)"
        raise refuse(f"{5 + columns} numbers: label, box and {shape}, or five without points, not {len(values)}")
    label, box = values[0], _box_of(values[1:], columns)
    if box is None:
        raise refuse("a label, then centre x, centre y, width, height, perhaps key points; or the corners of a polygon")
    if label not in label_of:
        few = ", ".join(str(key) for key in islice(label_of, _SHOWN)) + (", ..." if len(label_of) > _SHOWN else "")
        raise refuse(f"a label that names has: {few}")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in box):
        box = _as_meant(box, size_hw, refuse, facts, tolerant)
    places = points.read(values[5:]) if points and len(values) > 5 else None
    if places is None and points and len(values) > 5:
        raise refuse("key points in fractions of the image, and visibilities 0, 1 or 2")
    return label_of[int(label)], box, places


def _as_meant(
    box: list[float], size_hw: tuple[int, int], refuse: Callable[[str], DataError], facts: dict[str, str],
    tolerant: Tolerant,
) -> list[float]:  # fmt: skip
    """Return the fractions that are meant by numbers which are none: pixels, or a box that reaches out of its image.

    Raises DataError for others, and for these too unless they are tolerated.
    """
    sides = [*size_hw[::-1], *size_hw[::-1]]
    in_pixels = max(box) > 1.5 and all(0 <= v <= side for v, side in zip(box, sides, strict=True))
    overlaps = max(box) <= 1.5 and all(abs(c - 0.5) < (1 + side) / 2 for c, side in zip(box[:2], box[2:], strict=True))
    hint = "; these look like pixels" if max(box) > 1 + _SLACK else ""
    error = refuse(f"fractions of the image between 0 and 1{hint}")
    if not (in_pixels or overlaps):
        raise error
    done = "boxes converted from pixels" if in_pixels else "boxes beyond the edge of their image read as they are"
    tolerant.accept(Repairable(error.message, done=done, expected=error.facts["expected"], **facts))
    return [v / s for v, s in zip(box, sides, strict=True)] if in_pixels else box


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
    write_file(file, "\n".join([*splits, "names:", *named, *describe(schema, names), ""]).encode())
    return dict.fromkeys(sets, file)


def _fractions(image: ImageRecord, schema: KeypointSchema | None) -> Any:
    """Return the numbers of each object's line but the label."""
    boxes = to_centres(image.boxes_xyxy, (image.height, image.width))
    if schema is None:
        return boxes.tolist()
    points = np.zeros((len(boxes), len(schema.names), 3)) if image.keypoints is None else image.keypoints
    scale = np.array([image.width, image.height, 1], np.float64)
    return np.column_stack([boxes, (points / scale).reshape(len(boxes), -1)]).tolist()


WRITER = Writer("images/{split}", _write_splits, keypoints=True)
