"""Drawn images and videos in one folder, each under the name of its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ctnet.data.draw import fit_into
from ctnet.data.image import Image, write_image
from ctnet.errors import StorageError
from ctnet.files import temporary_beside, writing
from ctnet.predict.names import Names, kept_suffix
from ctnet.predict.sources import Frame, is_video
from ctnet.predict.video_writer import open_encoder


class Drawings:
    """Writes drawings into `folder`; a context manager, because closing it finishes the last video.

    Two sources of one name become `cell.jpg` and `cell-2.jpg`. A video cut short by an error leaves nothing, one cut
    short by an interrupt, as cameras are, what there is.
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
        self._end_video(keep=kind is None or kind is KeyboardInterrupt)

    def save(self, frame: Frame, drawing: Image) -> str:
        """Return the name, within the folder, of the file that the drawing of this frame goes to."""
        name = self._names.get(frame.path) or self._take_name(frame.path, is_video=frame.fps is not None)
        if frame.fps is None:
            write_image(self._folder / name, drawing)
        else:
            if self._video is None or self._video.path.name != name:
                self._end_video(keep=True)
                self._video = _Video(self._folder / name, frame.fps, drawing)
            self._video.write(drawing)
        return name

    def reserve(self, files: Sequence[Path]) -> None:
        """Give all files their names now, so that several processes agree on them."""
        for path in files:
            self._take_name(path, is_video=is_video(path))

    def _take_name(self, path: Path, *, is_video: bool) -> str:
        self._names[path] = self._free.take(path.stem, ".mp4" if is_video else kept_suffix(path))
        return self._names[path]

    def _end_video(self, keep: bool) -> None:
        if self._video:
            self._video.close(keep)
            self._video = None


class _Video:
    """An mp4 being written beside `path`; it takes that name when closed."""

    def __init__(self, path: Path, fps: float, first: Image) -> None:
        self.path = path
        self._partial = temporary_beside(path, ".mp4")
        self._shape = first.shape
        self._encoder = open_encoder(self._partial, fps, first)

    def write(self, drawing: Image) -> None:
        if drawing.shape != self._shape:  # streams may change their size; a file has one
            drawing, _ = fit_into(drawing, self._shape[:2])
        self._encoder.write(drawing)

    def close(self, keep: bool) -> None:
        try:
            self._encoder.close()
            if keep:
                with writing(self.path):
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
