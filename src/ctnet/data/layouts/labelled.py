"""Sets of images that name the classes of their objects: what readers of many layouts share."""

from __future__ import annotations

import reprlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctnet.data.layouts.coco import json_image_folders
from ctnet.data.layouts.names import Folders, ImageFinder
from ctnet.data.layouts.records import Records
from ctnet.errors import DataError
from ctnet.files import is_file, read_file
from ctnet.limits import parse_json
from ctnet.types import AnnotationSet, Category

Corners = tuple[float, float, float, float]
_LARGEST = 1e9
_IMAGE_FOLDERS = ("data", "images", "img", "JPEGImages", "imgs")


class Named(NamedTuple):
    """An object: its class, and x1, y1, x2, y2 in pixels, or in fractions of the image."""

    class_name: str
    box: Corners
    crowd: bool = False
    fractions: bool = False


class Labelled(NamedTuple):
    """An image by the name that annotations have for it, its (height, width) where they state it, and its objects.

    Where there is no such image, one called `stem` with any suffix is taken.
    """

    name: str
    size_hw: tuple[int, int] | None
    objects: Sequence[Named]
    stem: str = ""


@contextmanager
def understanding(file: Path, where: str, expected: str, got: object) -> Iterator[None]:
    """Raise DataError, naming the place in the file, where the block fails on content of another form."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError, zlib.error):
        raise DataError(
            f"{file.name}: {where} is malformed", file=file, expected=expected, got=reprlib.repr(got)
        ) from None


def bounds(points: Any) -> Corners:
    """Return the corners of the smallest box around points x, y. Raises ValueError unless they are finite numbers."""
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    if not len(xy) or not (np.abs(xy) < _LARGEST).all():
        raise ValueError("finite points")
    (x1, y1), (x2, y2) = xy.min(0), xy.max(0)
    return float(x1), float(y1), float(x2), float(y2)


def from_xywh(x: Any, y: Any, width: Any, height: Any) -> Corners:
    """Return the corners of a box by its first corner and its size, with any sign. Raises as `bounds`."""
    x, y, width, height = (float(v) for v in (x, y, width, height))
    return bounds([(x, y), (x + width, y + height)])


def side(value: object) -> int | None:
    """Return a side in pixels, None for anything else than a positive number."""
    known = isinstance(value, int | float | str) and not isinstance(value, bool)
    try:
        number = float(value) if known else 0.0  # type: ignore[arg-type]
    except ValueError:
        return None
    return int(number) if 0 < number < _LARGEST else None


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """Return (height, width) where both are stated, else None."""
    sides = side(height), side(width)
    return (sides[0], sides[1]) if sides[0] and sides[1] else None


def annotation_set(
    source: Path,
    split: str,
    images: Iterable[Labelled],
    image_folders: Sequence[Path],
    classes: Iterable[str] = (),
) -> AnnotationSet:
    """Return the set; category ids count from 1 in the order of `classes`, then of the other names' alphabet.

    `classes` should be those of all splits. Sizes that are not stated are read from the images.
    """
    labelled = list(images)
    stated = list(dict.fromkeys(classes))
    found = sorted({named.class_name for image in labelled for named in image.objects} - {*stated})
    label_of = {name: label for label, name in enumerate((*stated, *found))}
    records, find_image = Records(), ImageFinder(image_folders)
    for image_id, image in enumerate(labelled, start=1):
        path = find_image(image.name)
        if image.stem and not is_file(path):
            path = find_image.with_stem(image.stem) or path
        size = image.size_hw or records.size_of(path, image_id)
        if size is None:
            continue
        whole = np.array((size[1], size[0], size[1], size[0]), np.float32)
        boxes = np.array([named.box for named in image.objects], np.float32).reshape(-1, 4)
        boxes[[named.fractions for named in image.objects]] *= whole
        labels = np.array([label_of[named.class_name] for named in image.objects], np.int64)
        records.add(path, size, boxes, labels, image_id, [named.crowd for named in image.objects])
    categories = tuple(Category(label + 1, name) for name, label in label_of.items())
    return AnnotationSet(source, split, categories, tuple(records.images))


def load_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises DataError."""
    try:
        return parse_json(read_file(file))
    except OSError as error:
        raise DataError("cannot read the annotations", file=file, got=error.strerror) from None
    except ValueError as error:
        raise DataError("the annotations are not JSON", file=file, got=error) from None


def image_folders(place: Path, split: str = "") -> tuple[Path, ...]:
    """Return folders that may hold the images of annotations in a file or folder: beside them, and in usual ones."""
    folder = place if place.is_dir() else place.parent
    folders = Folders()
    tried = [folder, *(folders.entry(root, name) for root in (folder, folder.parent) for name in _IMAGE_FOLDERS)]
    tried += [folders.entry(parent, split) for parent in tried[1:] if parent and split]
    usual = json_image_folders(folder / f"{split or 'train'}.json")
    return (*dict.fromkeys(path for path in (*tried, *usual, folder.parent) if path and path.is_dir()),)
