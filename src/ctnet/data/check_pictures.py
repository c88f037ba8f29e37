"""Rules about picture files: there, whole, of the format and size that is stated, and in one split only."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ctnet.data.check_entries import Picture, Tables
from ctnet.data.findings import Finding, found
from ctnet.data.image import decode_image, read_image_file
from ctnet.devices.machine import usable_cores
from ctnet.errors import DataError

_SUFFIXES_OF = {
    b"\xff\xd8\xff": (".jpg", ".jpeg", ".jpe", ".jfif"),
    b"\x89PNG": (".png",),
    b"BM": (".bmp",),
    b"GIF8": (".gif",),
    b"RIFF": (".webp",),
    b"II*\0": (".tif", ".tiff"),
    b"MM\0*": (".tif", ".tiff"),
}
"""first bytes of a format: its suffixes"""


FORBIDDEN = "image-forbidden"


class Look(NamedTuple):
    """What a picture file turned out to be: (code, example) pairs, size (0 if unknown), digest."""

    problems: list[tuple[str, str]]
    height: int = 0
    width: int = 0
    digest: bytes = b""


def look_at_pictures(
    pictures: Sequence[Picture], decode: bool = True, advance: Callable[[], None] | None = None
) -> list[Look]:
    """Return what each picture file is; without `decode` only whether it is there and has bytes.

    `advance` is called once a picture.
    """
    looks = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for look in pool.map(_look if decode else _glance, pictures):
            looks.append(look)
            if advance:
                advance()
    return looks


def check_pictures(tables: Tables, looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield findings about the picture files of one split."""
    problems: dict[str, list[str]] = defaultdict(list)
    for look in looks:
        for code, example in look.problems:
            problems[code].append(example)
    for code, examples in problems.items():
        yield from found(code, tables.file, examples)


def check_twins(splits: Sequence[tuple[Tables, Sequence[Look]]]) -> Iterator[Finding]:
    """Yield a finding for each split that has pictures which an earlier split has, byte for byte."""
    first: dict[bytes, tuple[str, str]] = {}
    for tables, looks in splits:
        twins = []
        for picture, look in zip(tables.pictures, looks, strict=True):
            split, name = first.setdefault(look.digest, (tables.split, picture.name))
            if look.digest and split != tables.split:
                twins.append(f"{picture.name} is {name} of {split}")
        yield from found("image-in-two-splits", tables.file, twins)


def _glance(picture: Picture) -> Look:
    try:
        empty = picture.path.stat().st_size == 0
    except PermissionError:
        return _forbidden(picture)
    except OSError:
        return Look([("image-missing", f"{picture.name}: no {picture.path}")])
    return Look([("image-empty", picture.name)] if empty else [])


def _forbidden(picture: Picture) -> Look:
    return Look([(FORBIDDEN, f"{picture.name}: no rights to read {picture.path}")])


def _look(picture: Picture) -> Look:
    glance = _glance(picture)
    if glance.problems:
        return glance
    try:
        content = read_image_file(picture.path)
        image = decode_image(content, picture.path)
    except PermissionError:
        return _forbidden(picture)
    except (OSError, DataError) as error:
        reason = error.message if isinstance(error, DataError) else error.strerror
        return Look([("image-unreadable", f"{picture.name}: {reason}")])
    height, width = image.shape[:2]
    problems = []
    suffixes = next((s for start, s in _SUFFIXES_OF.items() if content.startswith(start)), ())
    if suffixes and Path(picture.name).suffix.lower() not in suffixes:
        problems.append(("image-suffix", f"{picture.name} is a {suffixes[0]} picture"))
    if picture.width and picture.height and (picture.width, picture.height) != (width, height):
        words = f"{picture.name}: stated {picture.width} x {picture.height}, is {width} x {height}"
        if (picture.width, picture.height) == (height, width) and _is_turned(content, image.shape[:2]):
            words += ", turned by its EXIF tag"
        problems.append(("image-size-differs", words))
    return Look(problems, height, width, hashlib.sha1(content, usedforsecurity=False).digest())


def _is_turned(content: bytes, upright: tuple[int, ...]) -> bool:
    """Say whether the EXIF tag exchanges height and width."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return stored is not None and stored.shape[:2] != upright
