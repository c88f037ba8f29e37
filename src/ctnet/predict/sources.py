"""The sources of `ctnet predict`: images and videos as one stream of frames."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ctnet.data.demo import data_or_demo
from ctnet.data.image import IMAGE_SUFFIXES, Image, read_image, require_decodable
from ctnet.data.image_header import Header
from ctnet.data.layouts.table import NoLayout, find_splits
from ctnet.errors import DataError

DATA_SUFFIXES = frozenset({".json", ".yaml", ".yml"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class Frame:
    """One image, or one frame of a video; `image_bgr` is (H,W,3) uint8.

    `index` counts all frames of the stream from 0. `frame_number` counts those of one video from 0 and `fps`
    is its frames per second; both are None for an image.
    """

    path: Path
    index: int
    image_bgr: Image
    frame_number: int | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Sources:
    """Files to read, in order, each once. Iterating reads them lazily.

    A file that cannot be read is left out and its error kept in `failures`: one bad file does not cost the
    others.
    """

    files: tuple[Path, ...]
    failures: list[DataError] = field(default_factory=list)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for path in self.files:
            try:
                for frame in _read_video(path, index) if is_video(path) else _read_one_image(path, index):
                    yield frame
                    index += 1
            except DataError as error:
                self.failures.append(error)

    def count_frames(self) -> int:
        """Return the number of frames; for a video the number in its header, which may be wrong."""
        return sum(_count_video(path) if is_video(path) else 1 for path in self.files)


def some_images(path: Path | None, count: int, split: str = "val") -> list[Path]:
    """Return at most `count` images, evenly spread: of a data set's split, a folder or a file; None: the demo set's.

    A set without the split gives its first one. Raises DataError when the path holds neither a data set nor images,
    or a data set that cannot be read.
    """
    files = _images_of_set(data_or_demo(path), split) or list(open_sources([str(path)]).files)
    return files[:: max(1, len(files) // count)][:count]


def _images_of_set(path: Path, split: str) -> list[Path]:
    """Return the images of a data set, none where the path is no data set."""
    if not path.exists() or (path.is_file() and path.suffix.lower() not in DATA_SUFFIXES):
        return []
    try:
        splits = find_splits(path)
    except NoLayout:
        return []
    return [image.path for image in splits.get(split, next(iter(splits.values()))).read().images]


def open_sources(arguments: Sequence[str]) -> Sources:
    """Return the frames behind files, folders (their images, not subfolders) and globs (also `**`).

    Folders and globs are sorted by name. Raises DataError, naming the argument, when it matches nothing.
    """
    files = [path for argument in arguments for path in _find(argument)]
    return Sources(tuple({path.resolve(): path for path in reversed(files)}.values())[::-1])


def _find(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_image(p))
        if not found:
            raise DataError(
                "no images in the folder",
                folder=argument,
                expected=" ".join(sorted(IMAGE_SUFFIXES)),
                hint=f"subfolders are not searched; for those: '{argument.rstrip('/')}/**/*.jpg'",
            )
        return found
    if path.exists():
        return [path]
    # Path.glob knows neither absolute patterns nor links to folders below `**`.
    matched = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207
    found = [p for p in matched if _is_image(p) or is_video(p)]
    if not found:
        what = "no image or video matches" if glob.has_magic(argument) else "no such file or folder"
        raise DataError(what, source=argument)
    return found


def _is_image(path: Path) -> bool:
    # Names like ._cell.jpg are what macOS leaves beside images on foreign disks.
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def is_video(path: Path) -> bool:
    """Return whether the file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _read_one_image(path: Path, index: int) -> Iterator[Frame]:
    yield Frame(path, index, read_image(path))


def _read_video(path: Path, first_index: int) -> Iterator[Frame]:
    """Yield the frames until the video ends. Raises DataError when there is not a single one."""
    capture = cv2.VideoCapture(str(path))
    try:
        height, width = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        require_decodable(Header(height, width), path)
        # Some containers state no rate, or nonsense such as NaN or 90000.
        stated = capture.get(cv2.CAP_PROP_FPS)
        fps = stated if 0 < stated <= 1000 else 25.0
        number = 0
        while True:
            read, image = capture.read()
            if not read:
                break
            yield Frame(path, first_index + number, np.asarray(image, np.uint8), number, fps)
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise DataError("the video cannot be decoded", file=path)


def _count_video(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    try:
        return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        capture.release()
