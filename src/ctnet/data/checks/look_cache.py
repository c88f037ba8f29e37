"""What image files turned out to be, kept until they change: 118,000 headers take seconds, their dates a moment."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ctnet._version import __version__
from ctnet.data.checks.images import Look, skim_images
from ctnet.errors import StorageError
from ctnet.files import cache_folder, read_file, write_file
from ctnet.limits import Limit, image_pixels, parse_json
from ctnet.types import Progress

_MOST_FILES = 16
_BYTES = Limit(1 << 28, "bytes in a file of the cache")
_SETTLED_NS = 2 * 10**9  # a file that changed just now may change again within the clock's grain

Stamp = tuple[int, int]
"""size and time of the last change in nanoseconds"""


def look_at_headers(sources: Sequence[Path], paths: Sequence[Path], progress: Progress | None = None) -> list[Look]:
    """Return the skimmed look at each image file, those of files that are as they were from the cache of the sources.

    A cache that cannot be read or written only costs time.
    """
    file = _file(sources)
    known = _read(file)
    names = [str(path) for path in paths]
    stamps = [_stamp(name) for name in names]
    looks: list[Look | None] = []
    for name, stamp in zip(names, stamps, strict=True):
        before, look = known.get(name, (None, None))
        looks.append(look if stamp is not None and before == stamp else None)
    fresh = [number for number, look in enumerate(looks) if look is None]
    for number, look in zip(fresh, skim_images([paths[number] for number in fresh], progress), strict=True):
        looks[number] = look
    answer = [look for look in looks if look is not None]
    if fresh:
        latest = time.time_ns() - _SETTLED_NS
        rows = {
            name: [*stamp, *look]
            for name, stamp, look in zip(names, stamps, answer, strict=True)
            if stamp is not None and stamp[1] < latest
        }
        with suppress(StorageError):
            write_file(file, json.dumps(rows).encode())
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


def _read(file: Path) -> dict[str, tuple[Stamp, Look]]:
    kinds = [int, int, *(type(value) for value in Look())]
    try:
        content = parse_json(read_file(file, _BYTES))
    except (OSError, ValueError):
        return {}
    known = {}
    for name, row in content.items() if isinstance(content, dict) else ():
        if not isinstance(row, list) or [type(value) for value in row] != kinds:
            return {}
        size, changed, *look = row
        known[name] = (size, changed), Look(*look)
    return known


def _remove_oldest(folder: Path) -> None:
    with suppress(OSError):
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-_MOST_FILES]:
            file.unlink(missing_ok=True)
