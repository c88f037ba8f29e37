"""YOLO: a data.yaml, and for every image a text file of labels with normalised boxes."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.box_form import from_centres, to_centres
from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.layouts.coco import is_integer
from ctnet.data.layouts.data_yaml import find_data_yaml, read_data_yaml
from ctnet.data.layouts.layout import SplitFiles, Tolerate, Writer, by_split
from ctnet.data.layouts.names import Folders, ImageFinder, files_below, plain_path, spelling
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import read_file, write_file
from ctnet.limits import TEXT_BYTES
from ctnet.types import AnnotationSet, Category, Float32, Int64

_SPLITS = ("train", "val", "valid", "validation", "test")
_SHOWN = 20  # labels named in an error
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
    understood: labels that `names` does not have, anything but five numbers, coordinates that are no
    fractions. With `tolerate` such lines and label files are left out and it gets each error. `key` is
    the split's name in the file where that differs.
    """
    tolerant = Tolerant(tolerate)
    content = read_data_yaml(data_yaml)
    categories = _categories(data_yaml, content.get("names"))
    label_of = {category.id: label for label, category in enumerate(categories)}
    records, labels_of = Records(), _LabelFiles()
    for image_id, path in enumerate(_images(data_yaml, content, key or split), start=1):
        size = records.size_of(path, image_id)
        if size is None:
            continue
        labels, centres = _read_labels(labels_of(path), label_of, tolerant)
        records.add(path, size, from_centres(centres, size), labels, image_id)
    return AnnotationSet(data_yaml, split, categories, tuple(records.images), labels_of.sought())


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


def _read_labels(file: Path | None, label_of: dict[int, int], tolerant: Tolerant) -> tuple[Int64, Float32]:
    """Return labels (N,) and boxes (N,4) as normalised centre x, centre y, width, height."""
    lines = tolerant(partial(_lines, file, "the labels")) if file else None
    read = (
        tolerant(partial(_read_line, file or Path(), number, line, label_of))
        for number, line in enumerate(lines or [], start=1)
        if line.strip()
    )
    rows = [row for row in read if row is not None]
    labels = np.array([label for label, _ in rows], np.int64)
    return labels, np.array([box for _, box in rows], np.float32).reshape(-1, 4)


def _lines(file: Path, what: str) -> list[str]:
    try:
        text = read_file(file, TEXT_BYTES).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("a NUL character")
        return text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {what}", file=file, got=getattr(error, "strerror", None) or error) from None


def _read_line(file: Path, number: int, line: str, label_of: dict[int, int]) -> tuple[int, list[float]]:
    def refuse(expected: str) -> DataError:
        return DataError(f"{file.name}:{number} is malformed", file=f"{file}:{number}", expected=expected, got=line)

    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        raise refuse("numbers: label, centre x, centre y, width, height") from None
    if len(values) != 5:
        raise refuse("five numbers: label, centre x, centre y, width, height (polygons are not read)")
    label, *box = values
    if label not in label_of:
        few = ", ".join(str(key) for key in islice(label_of, _SHOWN)) + (", ..." if len(label_of) > _SHOWN else "")
        raise refuse(f"a label that names has: {few}")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in box):
        pixels = "; these look like pixels" if max(box) > 1 + _SLACK else ""
        raise refuse(f"fractions of the image between 0 and 1{pixels}")
    return label_of[int(label)], box


def _write_splits(sets: Mapping[str, AnnotationSet], folder: Path) -> dict[str, Path]:
    """Write data.yaml and the labels of every split; labels count from 0 in the order of the categories."""
    for split, annotation_set in sets.items():
        for image in annotation_set.images:
            centres = to_centres(image.boxes_xyxy, (image.height, image.width)).tolist()
            rows = zip(image.labels.tolist(), centres, strict=True)
            lines = [" ".join((str(label), *(f"{v:.8g}" for v in row))) + "\n" for label, row in rows]
            write_file(folder / "labels" / split / f"{image.path.stem}.txt", "".join(lines).encode())
    file = folder / "data.yaml"
    names = dict(enumerate(category.name for category in next(iter(sets.values())).categories))
    splits = [f"{split}: images/{split}" for split in sets]
    named = [f"  {label}: {json.dumps(name)}" for label, name in names.items()]  # JSON's strings are YAML's
    write_file(file, "\n".join([*splits, "names:", *named, ""]).encode())
    return dict.fromkeys(sets, file)


WRITER = Writer("images/{split}", _write_splits)
