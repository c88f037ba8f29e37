"""Checks of image files: present, complete, of the stated format and size, and in one split only."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ctnet.data.checks.entries import ImageEntry, Tables
from ctnet.data.checks.findings import Finding, found
from ctnet.data.image import decode_image, read_image_file, suffixes_of
from ctnet.devices.machine import usable_cores
from ctnet.errors import DataError
from ctnet.types import Progress

FORBIDDEN = "image-forbidden"


class Look(NamedTuple):
    """The result of reading an image file: (code, example) pairs, size (0 if unknown), digest."""

    problems: list[tuple[str, str]]
    height: int = 0
    width: int = 0
    digest: bytes = b""


def look_at_images(images: Sequence[ImageEntry], decode: bool = True, progress: Progress | None = None) -> list[Look]:
    """Return the result for each image file; without `decode` only that it exists and has bytes."""
    looks = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for look in pool.map(_look if decode else _glance, images):
            looks.append(look)
            if progress:
                progress(len(looks), len(images))
    return looks


def check_images(tables: Tables, looks: Sequence[Look]) -> Iterator[Finding]:
    """Yield findings about the image files of one split."""
    problems: dict[str, list[str]] = defaultdict(list)
    for look in looks:
        for code, example in look.problems:
            problems[code].append(example)
    for code, examples in problems.items():
        yield from found(code, tables.file, examples)


def check_twins(splits: Sequence[tuple[Tables, Sequence[Look]]]) -> Iterator[Finding]:
    """Yield a finding for each split that has images which an earlier split has, byte for byte."""
    first: dict[bytes, tuple[str, str]] = {}
    for tables, looks in splits:
        twins = []
        for image, look in zip(tables.images, looks, strict=True):
            split, name = first.setdefault(look.digest, (tables.split, image.name))
            if look.digest and split != tables.split:
                twins.append(f"{image.name} is {name} of {split}")
        yield from found("image-in-two-splits", tables.file, twins)


def _glance(image: ImageEntry) -> Look:
    try:
        empty = image.path.stat().st_size == 0
    except PermissionError:
        return _forbidden(image)
    except (OSError, ValueError):  # a ValueError for a name that no file can have
        return Look([("image-missing", f"{image.name}: no {image.path}")])
    return Look([("image-empty", image.name)] if empty else [])


def _forbidden(image: ImageEntry) -> Look:
    return Look([(FORBIDDEN, f"{image.name}: no rights to read {image.path}")])


def _look(image: ImageEntry) -> Look:
    glance = _glance(image)
    if glance.problems:
        return glance
    try:
        content = read_image_file(image.path)
        height, width = decode_image(content, image.path).shape[:2]
    except PermissionError:
        return _forbidden(image)
    except (OSError, DataError) as error:
        reason = error.message if isinstance(error, DataError) else error.strerror
        return Look([("image-unreadable", f"{image.name}: {reason}")])
    problems = []
    suffixes = suffixes_of(content)
    if suffixes and Path(image.name).suffix.lower() not in suffixes:
        problems.append(("image-suffix", f"{image.name} is in the format of {suffixes[0]} files"))
    if image.width and image.height and (image.width, image.height) != (width, height):
        words = f"{image.name}: stated {image.width} x {image.height}, is {width} x {height}"
        if (image.width, image.height) == (height, width) and _is_turned(content, (height, width)):
            words += ", turned by its EXIF tag"
        problems.append(("image-size-differs", words))
    return Look(problems, height, width, hashlib.sha1(content, usedforsecurity=False).digest())


def _is_turned(content: bytes, upright: tuple[int, ...]) -> bool:
    """Return whether the EXIF tag exchanges height and width."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return stored is not None and stored.shape[:2] != upright
