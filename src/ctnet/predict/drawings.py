"""Drawn images and videos in one folder, each under the name of its source."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2

from ctnet.data.image import Image, write_image
from ctnet.errors import StorageError
from ctnet.files import temporary_beside, writing
from ctnet.predict.names import Names, kept_suffix
from ctnet.predict.sources import Frame


class Drawings:
    """Writes drawings into `folder`; a context manager, because closing it finishes the last video.

    Two sources of one name become `cell.jpg` and `cell-2.jpg`. A video cut short by an error leaves nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, str] = {}
        self._free = Names()
        self._video: _Video | None = None

    def __enter__(self) -> Drawings:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError("cannot make the folder", folder=self._folder, got=error.strerror) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_video(keep=kind is None)

    def save(self, frame: Frame, drawing: Image) -> str:
        """Return the name, within the folder, of the file that the drawing of this frame goes to."""
        name = self._names.get(frame.path) or self._take_name(frame)
        if frame.fps is None:
            write_image(self._folder / name, drawing)
        else:
            if self._video is None or self._video.path.name != name:
                self._end_video(keep=True)
                self._video = _Video(self._folder / name, frame.fps, drawing)
            self._video.write(drawing)
        return name

    def _take_name(self, frame: Frame) -> str:
        suffix = ".mp4" if frame.fps else kept_suffix(frame.path)
        self._names[frame.path] = self._free.take(frame.path.stem, suffix)
        return self._names[frame.path]

    def _end_video(self, keep: bool) -> None:
        if self._video:
            self._video.close(keep)
            self._video = None


class _Video:
    """An mp4 being written beside `path`; it takes that name when closed."""

    def __init__(self, path: Path, fps: float, first: Image) -> None:
        self.path = path
        self._partial = temporary_beside(path, ".mp4")
        height, width = first.shape[:2]
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._partial), codec, fps, (width, height))
        if not self._writer.isOpened():
            raise StorageError("cannot write the video", file=path, hint="--no-draw writes the detections alone")

    def write(self, drawing: Image) -> None:
        self._writer.write(drawing)

    def close(self, keep: bool) -> None:
        self._writer.release()
        if keep:
            with writing(self.path):
                self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)
