"""Pascal VOC: one XML a picture, pictures in JPEGImages, splits in ImageSets/Main; or XML beside the pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np

from ctnet.data.image_size import read_image_size
from ctnet.data.layout import SPLIT_FOLDERS
from ctnet.data.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import read_file
from ctnet.limits import TEXT_BYTES
from ctnet.types import AnnotationSet, Category, ImageRecord

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_PICTURES = ("JPEGImages", "images")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")

Row = tuple[str, tuple[float, ...]]


class _Files(NamedTuple):
    """What a split consists of."""

    names: list[str]  # of its pictures, without suffix
    listed_in: Path
    annotations: Path  # folders
    pictures: Path
    everywhere: list[Path]  # XML files of all splits


def read_voc(folder: Path, split: str, tolerate: Callable[[DataError], None] | None = None) -> AnnotationSet:
    """Return the pictures that `ImageSets/Main/{split}.txt` lists, boxes exactly as written.

    A folder without lists is one split, and one without `Annotations` has its XML beside the pictures. Categories are
    the names of all annotation files in alphabetical order, so that every split has the same; ids count from 1, as do
    those of pictures and boxes. Objects marked difficult are kept.

    Raises DataError, naming the file, for what cannot be understood. With `tolerate` such files and their pictures are
    left out instead, each told to it.
    """
    tolerant = Tolerant(tolerate)
    files = _files(folder, split)
    read = {file: tolerant(partial(_read, file)) for file in files.everywhere}
    class_names = sorted({name for annotated in read.values() if annotated for name, _ in annotated.objects})
    label_of = {name: label for label, name in enumerate(class_names)}
    images: list[ImageRecord] = []
    first_box = 1
    for image_id, name in enumerate(files.names, start=1):
        file = files.annotations / f"{name}.xml"
        annotated = read[file] if file in read else tolerant(partial(_no_annotations, files.listed_in, name))
        if annotated is None:
            continue
        path, objects = _picture(files.pictures, name, annotated.stated_name), annotated.objects
        size = annotated.size_hw or tolerant(partial(read_image_size, path))
        if size is None:
            continue
        height, width = size
        boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        images.append(
            ImageRecord(
                id=image_id,
                path=path,
                width=width,
                height=height,
                boxes_xyxy=boxes,
                labels=np.array([label_of[class_name] for class_name, _ in objects], np.int64),
                crowd=np.zeros(len(objects), np.bool_),
                areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
                annotation_ids=np.arange(first_box, first_box + len(objects), dtype=np.int64),
            )
        )
        first_box += len(objects)
    categories = tuple(Category(label + 1, name) for name, label in label_of.items())
    return AnnotationSet(folder, split, categories, tuple(images))


def _files(folder: Path, split: str) -> _Files:
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        own = sorted(folder.glob("*.xml"))
        family = [folder.parent / name for name in SPLIT_FOLDERS] if folder.name in SPLIT_FOLDERS else [folder]
        everywhere = [file for member in family for file in sorted(member.glob("*.xml"))]
        return _Files([file.stem for file in own], folder, folder, folder, everywhere)
    everywhere = sorted(annotations.glob("*.xml"))
    split_file = folder / "ImageSets" / "Main" / f"{split}.txt"
    pictures = next((folder / name for name in _PICTURES if (folder / name).is_dir()), folder)
    if not (folder / "ImageSets").is_dir():
        return _Files([file.stem for file in everywhere], annotations, annotations, pictures, everywhere)
    try:
        lines = read_file(split_file, TEXT_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the list of pictures", file=split_file, got=error) from None
    names = [line.split()[0] for line in lines if line.strip()]
    return _Files(names, split_file, annotations, pictures, everywhere)


class _Annotated(NamedTuple):
    """What one XML says: its objects, and if it does, (height, width) and the picture's name."""

    objects: list[Row]
    size_hw: tuple[int, int] | None
    stated_name: str


def _read(file: Path) -> _Annotated:
    root = _parse(file)
    return _Annotated(_objects(file, root), _size(file, root), (root.findtext("filename") or "").strip())


def _no_annotations(split_file: Path, name: str) -> NoReturn:
    raise DataError("a listed picture has no annotations", file=split_file, got=f"{name}: no {name}.xml")


def _parse(file: Path) -> ElementTree.Element:
    """Return the root element; entities are refused, as a few lines of them can fill the memory."""
    try:
        content = read_file(file, TEXT_BYTES)
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content:
            raise DataError(
                f"{file.name}: the annotations are not plain XML", file=file, expected="UTF-8, no document type"
            )
        return ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise DataError(f"{file.name}: the annotations are not XML", file=file, got=error) from None


def _objects(file: Path, root: ElementTree.Element) -> list[Row]:
    """Return (class name, box xyxy) of every object."""
    rows = []
    for position, element in enumerate(root.iter("object"), start=1):
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        box = _numbers(texts)
        if not name or box is None:
            raise DataError(
                f"{file.name}: object {position} is not as it must be",
                file=file,
                expected="a name and a bndbox of four finite numbers",
                got=f"name {name!r}, bndbox {texts}",
            )
        rows.append((name, box))
    return rows


def _numbers(texts: list[str | None]) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(text or "") for text in texts)
    except ValueError:
        return None
    return numbers if np.isfinite(np.array(numbers, np.float32)).all() else None


def _size(file: Path, root: ElementTree.Element) -> tuple[int, int] | None:
    """Return (height, width) as stated, or None when the file states none or zero, as some tools write."""
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if not all(texts):
        return None
    numbers = _numbers(texts)
    if numbers is None or min(numbers) < 0:
        raise DataError(f"{file.name}: the size is not as it must be", file=file, got=texts)
    height, width = (int(n) for n in numbers)
    return (height, width) if height and width else None


def _picture(pictures: Path, name: str, stated: str) -> Path:
    """Return the path of a picture: the listed name with any suffix, else what the XML calls it."""
    candidates = [pictures / f"{name}{suffix}" for suffix in _SUFFIXES]
    if stated:
        candidates.append(pictures / Path(stated).name)
    return next((path for path in candidates if path.is_file()), candidates[0])
