"""YOLO data sets: a data.yaml, and beside every images folder one of labels with normalised boxes."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.coco import is_integer
from ctnet.data.image_size import read_image_size
from ctnet.data.layout import read_data_yaml
from ctnet.data.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import read_file
from ctnet.limits import TEXT_BYTES
from ctnet.types import AnnotationSet, Category, Float32, ImageRecord, Int64

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_SHOWN = 20  # labels named in an error
_SLACK = 0.01
"""coordinates may pass 0 and 1 by so much: tools round"""


def read_yolo(data_yaml: Path, split: str, tolerate: Callable[[DataError], None] | None = None) -> AnnotationSet:
    """Return one split; category ids are the label numbers of the files, pictures and boxes count from 1.

    A picture without a label file has no objects. Raises DataError, naming file and line, for what cannot be
    understood: labels that `names` does not have, anything but five numbers, coordinates that are no
    fractions. With `tolerate` such lines, label files and pictures are left out instead, each told to it.
    """
    tolerant = Tolerant(tolerate)
    content = read_data_yaml(data_yaml)
    categories = _categories(data_yaml, content.get("names"))
    label_of = {category.id: label for label, category in enumerate(categories)}
    images: list[ImageRecord] = []
    first_box = 1
    for image_id, path in enumerate(_pictures(data_yaml, content, split), start=1):
        size = tolerant(partial(read_image_size, path))
        if size is None:
            continue
        height, width = size
        labels, centres = _read_labels(_label_file(path), label_of, tolerant)
        scale = np.array([width, height], np.float32)
        middle, half = centres[:, :2] * scale, centres[:, 2:] * scale / 2
        images.append(
            ImageRecord(
                id=image_id,
                path=path,
                width=width,
                height=height,
                boxes_xyxy=np.concatenate([middle - half, middle + half], axis=1),
                labels=labels,
                crowd=np.zeros(len(labels), np.bool_),
                areas=np.prod(2 * half, axis=1, dtype=np.float32),
                annotation_ids=np.arange(first_box, first_box + len(labels), dtype=np.int64),
            )
        )
        first_box += len(labels)
    return AnnotationSet(data_yaml, split, categories, tuple(images))


def _categories(data_yaml: Path, names: Any) -> tuple[Category, ...]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(
        is_integer(key) and isinstance(name, str) and name.strip() for key, name in names.items()
    ):
        raise DataError(
            "names is not as it must be", file=data_yaml, expected="a list, or number: name", got=reprlib.repr(names)
        )
    return tuple(Category(key, names[key]) for key in sorted(names))


def _pictures(data_yaml: Path, content: dict[str, Any], split: str) -> list[Path]:
    """Return the pictures of a split, which is a folder, a text file that lists them, or several of those."""
    entry = content.get(split)
    entries: list[Any] = entry if isinstance(entry, list) else [entry]
    if not entry or not all(isinstance(text, str) for text in entries):
        raise DataError(f"there is no split {split!r}", file=data_yaml, got=entry, expected="a folder of pictures")
    root = data_yaml.parent / str(content.get("path") or ".")
    pictures: list[Path] = []
    for text in entries:
        # Some exporters write ../train/images although the folder lies beside the yaml.
        source = next((p for p in (root / text, root / text.removeprefix("../")) if p.exists()), None)
        if source is None:
            raise DataError("the pictures are not where they should be", file=data_yaml, got=root / text)
        if source.is_dir():
            pictures += sorted(p for p in source.rglob("*") if p.suffix.lower() in _SUFFIXES)
        else:
            lines = _lines(source, "the list of pictures")
            pictures += [source.parent / line.strip() for line in lines if line.strip()]
    return pictures


def _label_file(picture: Path) -> Path:
    """Return where the labels of a picture lie: `labels` in place of the last folder called `images`."""
    parts = list(picture.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_labels(file: Path, label_of: dict[int, int], tolerant: Tolerant) -> tuple[Int64, Float32]:
    """Return labels (N,) and boxes (N,4) as normalised centre x, centre y, width, height."""
    lines = tolerant(partial(_lines, file, "the labels")) if file.exists() else None
    read = (
        tolerant(partial(_read_line, file, number, line, label_of))
        for number, line in enumerate(lines or [], start=1)
        if line.strip()
    )
    rows = [row for row in read if row is not None]
    labels = np.array([label for label, _ in rows], np.int64)
    return labels, np.array([box for _, box in rows], np.float32).reshape(-1, 4)


def _lines(file: Path, what: str) -> list[str]:
    try:
        return read_file(file, TEXT_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {what}", file=file, got=getattr(error, "strerror", None) or error) from None


def _read_line(file: Path, number: int, line: str, label_of: dict[int, int]) -> tuple[int, list[float]]:
    def refuse(expected: str) -> DataError:
        return DataError(
            f"{file.name}:{number} is not as it must be", file=f"{file}:{number}", expected=expected, got=line
        )

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
        raise refuse(f"fractions of the picture between 0 and 1{pixels}")
    return label_of[int(label)], box
