"""WIDER FACE: lists of faces in text files, and RetinaFace's lists, which have five landmarks of most faces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.layouts.keypoints import stacked_points
from ctnet.data.layouts.layout import SplitFiles, Tolerate, by_split
from ctnet.data.layouts.names import ImageFinder, plain_path
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.text import read_text
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import require_file
from ctnet.types import FACE, AnnotationSet, Category, Float32

CATEGORIES = (Category(1, "face"),)
_LISTS = ("wider_face_{split}_bbx_gt.txt", "wider_face_{split}_filelist.txt")
_LANDMARKS = "label.txt"
_INVALID = 7  # the column of a face that WIDER FACE marks as invalid
_SHOWN = 100


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a folder, or of one of its lists.

    A list with landmarks, `SPLIT/label.txt`, is taken before WIDER FACE's own of that split.
    """
    if path.is_file():
        match = re.fullmatch(r"wider_face_(train|val|test)_(bbx_gt|filelist)\.txt", path.name)
        if not match and not (path.name == _LANDMARKS and _has_names(path)):
            return {}
        split = match.group(1) if match else path.parent.name
        root = path.parent.parent if path.parent.name in ("wider_face_split", split) else path.parent
        return {split: SplitFiles(path, _image_folders(root, split), serves_any=True)}
    found = []
    for split in ("train", "val", "test"):
        own = (path / folder / name.format(split=split) for folder in ("wider_face_split", ".") for name in _LISTS)
        landmarks = path / split / _LANDMARKS
        file = landmarks if _has_names(landmarks) else next((file for file in own if file.is_file()), None)
        if file is not None:
            found.append((split, SplitFiles(file, _image_folders(path, split))))
    return by_split(found)


def _has_names(file: Path) -> bool:
    """Return whether the file begins as RetinaFace's lists do: others have this name too."""
    try:
        require_file(file)
        with file.open("rb") as stream:
            return stream.read(64).lstrip(b"\xef\xbb\xbf \r\n").startswith(b"#")
    except OSError:
        return False


def _image_folders(root: Path, split: str) -> tuple[Path, ...]:
    """Return the folders that hold the folders of events; the first is the likeliest."""
    places = (f"WIDER_{split}/images", f"{split}/images", f"images/{split}", f"WIDER_{split}", split, "images")
    return (*(root / place for place in places if (root / place).is_dir()), root)


class _Faces(NamedTuple):
    """The faces of an image: boxes (N,4) xyxy, landmarks or None for each, and which are invalid."""

    name: str
    boxes: list[tuple[float, float, float, float]]
    points: list[Float32 | None]
    invalid: list[bool]


def read_wider(files: SplitFiles, split: str, tolerate: Tolerate | None = None) -> AnnotationSet:
    """Return one split: the class `face`, with landmarks where the list has them; images and faces count from 1.

    Faces without area stay. A face that is marked as invalid is a crowd: neither taught nor scored. Raises DataError,
    naming file and line, for what cannot be understood; with `tolerate` a face or image is left out instead.
    """
    tolerant, records, find_image = Tolerant(tolerate), Records(), ImageFinder(files.image_folders)
    lines = read_text(files.file, "the list of faces", tolerate).splitlines()
    landmarked = files.file.name == _LANDMARKS
    parts = _with_landmarks(files.file, lines, tolerant) if landmarked else _own(files.file, lines, tolerant)
    schema = FACE if landmarked else None
    for image_id, faces in enumerate(parts, start=1):
        path = find_image(faces.name)
        size = records.size_of(path, image_id)
        if size is not None:
            boxes = np.array(faces.boxes, np.float32).reshape(-1, 4)
            labels = np.zeros(len(boxes), np.int64)
            records.add(path, size, boxes, labels, image_id, faces.invalid, stacked_points(faces.points, schema))
    return AnnotationSet(files.file, split, CATEGORIES, tuple(records.images), keypoints=schema)


def _own(file: Path, lines: list[str], tolerant: Tolerant) -> Iterator[_Faces]:
    """Yield the images of WIDER FACE's list: a name, the number of faces, a line for each face; or names alone.

    An image without a face has the number 0 and one line of zeros.
    """
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        at += 1
        if not name:
            continue
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise _malformed(file, at, "the name of an image", name)
        faces = _Faces(plain_path(name), [], [], [])
        if at < len(lines) and lines[at].strip().isdecimal():
            count = int(lines[at])
            at += 1
            if count == 0 and at < len(lines) and re.fullmatch(r"[0 ]+", lines[at].strip()):
                at += 1
            for line in lines[at : at + count]:
                at += 1
                numbers = tolerant(partial(_numbers, file, at, line, (4, 10), "x y width height and six attributes"))
                if numbers is not None:
                    _add(faces, numbers, None, invalid=len(numbers) > 4 and numbers[_INVALID] == 1)
        yield faces


def _with_landmarks(file: Path, lines: list[str], tolerant: Tolerant) -> Iterator[_Faces]:
    """Yield the images of RetinaFace's list: `# name`, then a line for each face.

    A line is x, y, width, height, and perhaps x, y and a flag for each of five landmarks, and a number of how clear
    the face is. The flag is 0 for a landmark that is visible, 1 for a hidden one and -1 for one that is not labelled.
    """
    faces: _Faces | None = None
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("#"):
            if faces is not None:
                yield faces
            faces = _Faces(plain_path(text[1:].strip()), [], [], [])
        elif text:
            if faces is None:
                raise _malformed(file, number, "# and the name of an image", text)
            expected = "x y width height, or these and five landmarks (x y flag)"
            numbers = tolerant(partial(_numbers, file, number, line, (4, 19, 20), expected))
            if numbers is not None:
                _add(faces, numbers, _landmarks(numbers[4:19]) if len(numbers) > 4 else None, invalid=False)
    if faces is not None:
        yield faces


def _landmarks(numbers: list[float]) -> Float32:
    points = np.array(numbers, np.float32).reshape(5, 3)
    labelled = (points[:, 2] >= 0) & (points[:, :2] >= 0).all(1)
    seen = np.where(points[:, 2] == 0, 2, 1)
    return np.where(labelled[:, None], np.column_stack([points[:, :2], seen]), 0).astype(np.float32)


def _add(faces: _Faces, numbers: list[float], points: Float32 | None, *, invalid: bool) -> None:
    x, y, width, height = numbers[:4]
    faces.boxes.append((x, y, x + width, y + height))
    faces.points.append(points)
    faces.invalid.append(invalid)


def _numbers(file: Path, number: int, line: str, counts: tuple[int, ...], expected: str) -> list[float]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not np.isfinite(np.array(numbers, np.float32)).all():
        raise _malformed(file, number, f"{expected}: {' or '.join(map(str, counts))} numbers", line)
    return numbers


def _malformed(file: Path, number: int, expected: str, got: str) -> DataError:
    return DataError(f"{file.name}:{number} is malformed", file=f"{file}:{number}", expected=expected, got=got[:_SHOWN])
