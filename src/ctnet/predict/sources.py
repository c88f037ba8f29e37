"""The sources of `ctnet predict`: images, videos and streams as one stream of frames."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ctnet.data.demo import data_or_demo
from ctnet.data.image import IMAGE_SUFFIXES, Decoded, Image, decode, decode_file, suffixes_of
from ctnet.data.layouts.table import NoLayout, find_splits
from ctnet.data.remarks import Remarks
from ctnet.data.value_range import ValueRange
from ctnet.errors import DataError
from ctnet.predict.streams import STDIN, Stdin, Stream, as_stream, open_stdin
from ctnet.predict.video import VIDEO_SUFFIXES, VideoFrame, begins_video, count_frames, open_capture, read_frames

DATA_SUFFIXES = frozenset({".json", ".yaml", ".yml", ".csv", ".zip", ".data"})
_SHOWN = 5
_HEAD = 256


@dataclass(frozen=True)
class Frame:
    """One image, or one frame of a video; `image_bgr` is (H,W,3) uint8.

    `index` counts all frames from 0. `frame_number` counts those of one video from 0 and `fps` is its frames per
    second; both are None for an image. `shown` is the name of what is no file.
    """

    path: Path
    index: int
    image_bgr: Image
    frame_number: int | None = None
    fps: float | None = None
    shown: str | None = None


@dataclass(frozen=True)
class Sources:
    """Files and streams to read, in order, each once. Iterating reads them lazily.

    What cannot be read is left out and its error kept in `failures`, so that one bad file does not cost the others;
    frames of a damaged video that could be read are not lost. `skipped` are files of a folder or glob that are neither
    images nor videos, `unsearched` its subfolders. `most_frames` of each video and stream are read.
    """

    files: tuple[Path | Stream | Stdin, ...]
    skipped: tuple[Path, ...] = ()
    unsearched: tuple[Path, ...] = ()
    most_frames: int | None = None
    failures: list[DataError] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)

    def __iter__(self) -> Iterator[Frame]:
        return self.read()

    def read(self, value_range: ValueRange | None = None) -> Iterator[Frame]:
        """Yield the frames; see `read_image` for `value_range`."""
        index = 0
        for source in self.files:
            try:
                for frame in self._read(source, value_range):
                    yield replace(frame, index=index)
                    index += 1
            except DataError as error:
                self.failures.append(error)

    def _read(self, source: Path | Stream | Stdin, value_range: ValueRange | None) -> Iterator[Frame]:
        if isinstance(source, Stream):
            yield from _of_video(source.frames(self.most_frames), source.name, source.shown)
        elif isinstance(source, Stdin) and source.is_video:
            yield from _of_video(source.video(self.most_frames), Path("stdin"), STDIN)
        elif isinstance(source, Stdin):
            for name, content in source.images():
                try:
                    yield self._image(name, decode(content, name, value_range=value_range), name.name)
                except DataError as error:
                    self.failures.append(error)
        elif is_video(source):
            yield from _of_video(read_frames(open_capture(str(source), source), source, self.most_frames), source)
        else:
            yield self._image(source, decode_file(source, value_range=value_range))

    def _image(self, path: Path, decoded: Decoded, shown: str | None = None) -> Frame:
        self.remarks.add(path, decoded)
        return Frame(path, 0, decoded.image, shown=shown)

    def count_frames(self) -> int:
        """Return the number of frames; for a video the number in its header, which may be wrong, for a stream 0."""
        return sum(self._count(source) for source in self.files if isinstance(source, Path))

    def _count(self, path: Path) -> int:
        if not is_video(path):
            return 1
        try:
            capture = open_capture(str(path), path)
        except DataError:
            return 0
        count = count_frames(capture)
        capture.release()
        return min(count, self.most_frames or count)

    def notes(self) -> list[str]:
        """Return sentences about what is not read."""
        notes = []
        if self.skipped:
            are = "1 file is neither image nor video" if len(self.skipped) == 1 else (
                f"{len(self.skipped)} files are neither images nor videos")  # fmt: skip
            notes.append(f"{are}: {_few(self.skipped)}")
        if self.unsearched:
            folder = self.unsearched[0].parent
            notes.append(f"subfolders are not searched: {_few(self.unsearched)}; for those: '{folder}/**/*'")
        return notes


def _few(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")


def _of_video(frames: Iterator[VideoFrame], path: Path, shown: str | None = None) -> Iterator[Frame]:
    for frame in frames:
        yield Frame(path, 0, frame.image_bgr, frame.number, frame.fps, shown)


def some_images(path: Path | None, count: int, split: str = "val") -> list[Path]:
    """Return at most `count` images, evenly spread: of a data set's split, a folder or a file; None: the demo set's.

    A set without the split gives its first one. Raises DataError when the path holds neither a data set nor images,
    or a data set that cannot be read.
    """
    files = _images_of_set(data_or_demo(path), split) or [
        file for file in open_sources([str(path)]).files if isinstance(file, Path)
    ]
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


def open_sources(arguments: Sequence[str], most_frames: int | None = None) -> Sources:
    """Return the frames behind files, folders (not their subfolders), globs (also `**`), cameras, addresses and `-`.

    `-` is standard input: images, a video, or names of sources, one a line. Folders and globs are sorted by name.
    Raises DataError, naming the argument, when it matches nothing.
    """
    found = _Found()
    for argument in arguments:
        given = open_stdin() if argument == STDIN else [argument]
        if isinstance(given, Stdin):
            found.sources.append(given)
        else:
            for name in given:
                found.add(name)
    unique = {source.resolve() if isinstance(source, Path) else source: source for source in reversed(found.sources)}
    return Sources(tuple(unique.values())[::-1], tuple(found.skipped), tuple(found.folders), most_frames)


@dataclass
class _Found:
    """What arguments name."""

    sources: list[Path | Stream | Stdin] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def add(self, argument: str) -> None:
        """Add the files or the stream behind an argument. Raises DataError when there is none."""
        path = Path(argument)
        if path.is_dir():
            self._add_folder(path)
        elif path.exists():
            self.sources.append(path)
        elif stream := as_stream(argument):
            self.sources.append(stream)
        else:
            # Path.glob knows neither absolute patterns nor links to folders below `**`.
            matched = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
            if not self._add_files(matched):
                what = "no image or video matches" if glob.has_magic(argument) else "no such file or folder"
                raise DataError(what, source=argument)

    def _add_folder(self, folder: Path) -> None:
        inside = sorted(folder.iterdir())
        folders = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
        if not self._add_files(inside):
            raise DataError(
                "no images or videos in the folder", folder=folder,
                got=_few([path for path in inside if path.is_file()]) or None,
                expected=" ".join((*IMAGE_SUFFIXES, *sorted(VIDEO_SUFFIXES))),
                hint=f"subfolders are not searched; for those: '{folder}/**/*'" if folders else None,
            )  # fmt: skip
        self.folders += folders

    def _add_files(self, paths: list[Path]) -> bool:
        """Add the images and videos among the paths; return whether there is one."""
        before = len(self.sources)
        for path in paths:
            # Names like ._cell.jpg are what macOS leaves beside images on foreign disks.
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES or is_video(path) or suffixes_of(_head(path)):
                self.sources.append(path)
            else:
                self.skipped.append(path)
        return len(self.sources) > before


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its name or, where that names no format, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return path.is_file()
    if suffix in IMAGE_SUFFIXES or not path.is_file():
        return False
    head = _head(path)
    return begins_video(head) and not suffixes_of(head)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""
