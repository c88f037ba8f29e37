"""What image files turned out to be, kept until they change: 118,000 headers take seconds, their dates a moment."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctnet._version import __version__
from ctnet.data.checks.images import Look, skim_images
from ctnet.errors import StorageError
from ctnet.files import cache_folder, read_file, write_file
from ctnet.limits import Limit, image_pixels
from ctnet.types import Progress

_MOST_FILES = 16
_BYTES = Limit(1 << 28, "bytes in a file of the cache")
_SETTLED_NS = 2 * 10**9  # a file that changed just now may change again within the clock's grain

_COLUMNS = ("name", "size", "changed", *Look._fields)
_KINDS = (str, int, int, *(type(value) for value in Look()))

Stamp = tuple[int, int]
"""size and time of the last change in nanoseconds"""


def look_at_headers(sources: Sequence[Path], paths: Sequence[Path], progress: Progress | None = None) -> list[Look]:
    """Return the skimmed look at each image file, those of files that are as they were from the cache of the sources.

    A cache that cannot be read or written only costs time.
    """
    file = _file(sources)
    names = [str(path) for path in paths]
    stamps = [_stamp(name) for name in names]
    known = _read(file)
    looks = [look if stamp == before else None for stamp, (before, look) in zip(stamps, known(names), strict=True)]
    fresh = [number for number, look in enumerate(looks) if look is None]
    for number, look in zip(fresh, skim_images([paths[number] for number in fresh], progress), strict=True):
        looks[number] = look
    answer = [look for look in looks if look is not None]
    if fresh:
        latest = time.time_ns() - _SETTLED_NS
        rows = [
            (name, *stamp, *look)
            for name, stamp, look in zip(names, stamps, answer, strict=True)
            if stamp is not None and stamp[1] < latest
        ]
        with suppress(StorageError):
            write_file(file, json.dumps(dict(zip(_COLUMNS, zip(*rows, strict=True), strict=False))).encode())
            _remove_oldest(file.parent)
    return answer


def _file(sources: Sequence[Path]) -> Path:
    key = json.dumps([__version__, image_pixels().most, *(str(source.absolute()) for source in sources)])
    return cache_folder() / "looks" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _stamp(name: str) -> Stamp | None:
    try:
        found = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _read(file: Path) -> Callable[[list[str]], Iterator[tuple[Stamp | None, Look | None]]]:
    """Return what gives the stamps and looks that a file of the cache has of images, in columns for speed."""
    columns: list[Any] = [[] for _ in _COLUMNS]
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(read_file(file, _BYTES))
        if isinstance(content, dict) and _is_sound(found := [content.get(name) for name in _COLUMNS]):
            columns = found
    names, sizes, times, *looks = columns

    def known(wanted: list[str]) -> Iterator[tuple[Stamp | None, Look | None]]:
        if wanted == names:
            return zip(zip(sizes, times, strict=True), map(Look, *looks), strict=True)
        of = dict(zip(names, zip(zip(sizes, times, strict=True), map(Look, *looks), strict=True), strict=True))
        return (of.get(name, (None, None)) for name in wanted)

    return known


def _is_sound(columns: Sequence[Any]) -> bool:
    """Return whether these are lists of one length with values of the kinds that they should have."""
    kinds = [{*map(type, values)} if isinstance(values, list) else {None} for values in columns]
    right = all(found <= {kind} for found, kind in zip(kinds, _KINDS, strict=True))
    return right and len({len(values) for values in columns}) == 1


def _remove_oldest(folder: Path) -> None:
    with suppress(OSError):
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-_MOST_FILES]:
            file.unlink(missing_ok=True)
