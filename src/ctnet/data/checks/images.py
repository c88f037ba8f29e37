"""Checks of image files: present, complete, of the stated format and size, and in one split only."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from ctnet.data.checks.entries import ImageEntry, Tables
from ctnet.data.checks.findings import Finding, found
from ctnet.data.cut_short import lacks_end
from ctnet.data.image import decode_image, read_image_file, require_decodable, require_image, suffixes_of
from ctnet.data.image_header import Header, read_header
from ctnet.devices.machine import usable_cores
from ctnet.errors import DataError
from ctnet.files import exists, require_file
from ctnet.types import Progress

T = TypeVar("T")

FORBIDDEN = "image-forbidden"
UNREADABLE = ("image-empty", "image-unreadable")
"""the codes of files that are there and hold no image that can be read"""
_ENDS = 4096  # bytes at begin, middle and end that two files share by chance only where they are blank
_HEAD = 16_384  # bytes at the begin, in which nearly all files state their size
_PER_TASK = 64


class Look(NamedTuple):
    """What an image file turned out to be, whatever is stated of it.

    `code` is the kind of finding about it, "" for none, `words` its reason. `height` and `width` are 0 where it cannot
    be read, `turned` says whether EXIF exchanged them, `orientation` is EXIF's where the header states it. `misnamed`
    is the suffix that the format has and the file lacks. `digest` is the same for files of the same content.
    """

    code: str = ""
    words: str = ""
    height: int = 0
    width: int = 0
    turned: bool = False
    orientation: int = 0
    misnamed: str = ""
    digest: str = ""


def decode_images(paths: Sequence[Path], progress: Progress | None = None) -> list[Look]:
    """Return what each image file is, after reading and decoding all of it."""
    return _in_parallel(_decode, paths, progress)


def skim_images(paths: Sequence[Path], progress: Progress | None = None) -> list[Look]:
    """Return what each image file is, from its header alone wherever that says enough.

    Files of one digest are to be compared: it is that of a few bytes.
    """
    return _in_parallel(_skim, paths, progress)


def _in_parallel(look: Callable[[Path], T], paths: Sequence[Path], progress: Progress | None) -> list[T]:
    looks: list[T] = []
    parts = [paths[start : start + _PER_TASK] for start in range(0, len(paths), _PER_TASK)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        for part in pool.map(lambda part: [look(path) for path in part], parts):
            looks += part
            if progress:
                progress(len(looks), len(paths))
    return looks


def check_images(tables: Tables, looks: Iterable[Look]) -> Iterator[Finding]:
    """Yield findings about the image files of one split."""
    problems: dict[str, list[str]] = defaultdict(list)
    for image, look in zip(tables.images, looks, strict=True):
        if look.code:
            problems[look.code].append(f"{image.name}: {look.words}")
        if look.misnamed:
            problems["image-suffix"].append(f"{image.name} is in the format of {look.misnamed} files")
        stated, size = (image.width, image.height), (look.width, look.height)
        if all(stated) and all(size) and stated != size:
            words = f"{image.name}: stated {image.width} x {image.height}, is {look.width} x {look.height}"
            turned = look.turned and stated == size[::-1]
            problems["image-size-differs"].append(f"{words}, turned by its EXIF tag" if turned else words)
    for code, examples in problems.items():
        yield from found(code, tables.file, examples)


def check_repeated_files(tables: Tables) -> Iterator[Finding]:
    """Yield a finding when several entries are one file."""
    first: dict[Path, ImageEntry] = {}
    repeated = [
        f"{other.name} and {image.name} (images {other.id} and {image.id}): both are {image.path}"
        for image in tables.images
        if (other := first.setdefault(image.path, image)) is not image
    ]
    yield from found("image-file-repeated", tables.file, repeated)


def check_twins(splits: Sequence[tuple[Tables, Sequence[Look]]]) -> Iterator[Finding]:
    """Yield a finding for each split that has images which an earlier split has, byte for byte."""
    first: dict[str, tuple[str, str]] = {}
    for tables, looks in splits:
        twins = []
        for image, look in zip(tables.images, looks, strict=True):
            split, name = first.setdefault(look.digest, (tables.split, image.name))
            if look.digest and split != tables.split:
                twins.append(f"{image.name} is {name} of {split}")
        yield from found("image-in-two-splits", tables.file, twins)


def confirmed(splits: Sequence[tuple[Tables, Sequence[Look]]]) -> list[tuple[Tables, list[Look]]]:
    """Return the skimmed looks with digests of the whole file where different files of two splits share one."""
    seen: set[str] = set()
    doubtful: set[str] = set()
    for _, looks in splits:
        digests = {look.digest for look in looks}
        doubtful |= seen & digests
        seen |= digests
    doubtful -= {""}
    if not doubtful:
        return [(tables, [*looks]) for tables, looks in splits]
    files: dict[str, set[Path]] = defaultdict(set)
    for tables, looks in splits:
        for image, look in zip(tables.images, looks, strict=True):
            if look.digest in doubtful:
                files[look.digest].add(image.path)
    unsure = [path for paths in files.values() if len(paths) > 1 for path in paths]  # one file is its own twin
    whole = dict(zip(unsure, _in_parallel(_whole_digest, unsure, None), strict=True))
    return [
        (
            tables,
            [
                look._replace(digest=whole.get(image.path, look.digest)) if look.digest in doubtful else look
                for image, look in zip(tables.images, looks, strict=True)
            ],
        )
        for tables, looks in splits
    ]


def _decode(path: Path) -> Look:
    return _look(path, decode=True)


def _skim(path: Path) -> Look:
    return _look(path, decode=False)


def _look(path: Path, *, decode: bool) -> Look:
    try:
        size = require_file(path)
        if not size:
            return Look("image-empty", "it has zero bytes")
        if decode:
            return _examine(read_image_file(path), path, decode=True)
        with path.open("rb", buffering=0) as file:
            look = _skim_ends(file.fileno(), size, path)
            if look:
                return look
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _examine(content, path, decode=False)
    except PermissionError:
        return Look(FORBIDDEN, f"no rights to read {path}")
    except OSError as error:  # also for a name that no file can have
        there = exists(path)
        return Look("image-unreadable", f"{error.strerror}") if there else Look("image-missing", f"no {path}")
    except DataError as error:
        return Look("image-unreadable", error.message)


def _skim_ends(file: int, size: int, path: Path) -> Look | None:
    """Return the look at a large JPEG or PNG by what it begins and ends with, None where that does not say everything.

    Reading these bytes takes a fraction of the time of mapping the file. Raises DataError as `_examine` does.
    """
    if size < _HEAD:
        return None
    head, end = os.pread(file, _HEAD, 0), os.pread(file, _ENDS, size - _ENDS)
    header = read_header(head)
    if header is None or header.turned is None or not (header.height and header.width):
        return None
    if not (end.endswith(b"\xff\xd9") if head.startswith(b"\xff\xd8") else end.endswith(b"IEND", 0, -4)):
        return None
    require_decodable(header, path)
    sides = header[1::-1] if header.turned else header[:2]
    return _seen(header, sides, head, path, digest=_digest_of(size, head, os.pread(file, _ENDS, size // 2), end))


def _examine(content: bytes | mmap.mmap, path: Path, *, decode: bool) -> Look:
    """Return the look at a file with content. Raises DataError for one that cannot be read."""
    header = require_image(content, path)
    cut = lacks_end(content)
    if decode or cut or header.turned is None or not (header.height and header.width):
        sides = decode_image(content[:], path).shape[:2]
    else:
        sides = header[1::-1] if header.turned else header[:2]
    middle = len(content) // 2
    quick = _digest_of(len(content), content[:_ENDS], content[middle : middle + _ENDS], content[-_ENDS:])
    look = _seen(header, sides, content[:_ENDS], path, digest=_digest(content) if decode else quick)
    return look._replace(code="image-cut", words="its last bytes are missing") if cut else look


def _seen(header: Header, sides: Sequence[int], head: bytes, path: Path, *, digest: str) -> Look:
    """Return the look at an image that has these sides, height and width, as it is seen."""
    height, width = sides
    suffixes = suffixes_of(head)
    return Look(
        height=height,
        width=width,
        turned=(height, width) == (header.width, header.height) != (header.height, header.width),
        orientation=header.orientation or 0,
        misnamed="" if not suffixes or path.suffix.lower() in suffixes else suffixes[0],
        digest=digest,
    )


def _digest_of(size: int, *parts: bytes) -> str:
    return _digest(size.to_bytes(8, "big") + b"".join(part[:_ENDS] for part in parts))


def _digest(content: mmap.mmap | bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _whole_digest(path: Path) -> str:
    try:
        return _digest(read_image_file(path))
    except OSError:
        return ""
