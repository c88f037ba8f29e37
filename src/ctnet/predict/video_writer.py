"""Videos written as mp4: H.264 through the ffmpeg command, else MPEG-4 through OpenCV."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import IO, Protocol

import cv2

from ctnet.data.image import Image
from ctnet.errors import StorageError

_QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin")


class Encoder(Protocol):
    """Takes the frames of one video."""

    def write(self, image_bgr: Image) -> None:
        """Add a frame; all have the size of the first."""

    def close(self) -> None:
        """Finish the file. Raises StorageError."""


def open_encoder(file: Path, fps: float, first: Image) -> Encoder:
    """Return what writes an mp4 of frames like the first one. Raises StorageError where nothing can."""
    height, width = first.shape[:2]
    return _H264(file, fps, width, height) if _has_h264() else _Mpeg4(file, fps, width, height)


@cache
def _has_h264() -> bool:
    """Return whether there is an ffmpeg command that encodes H.264."""
    if shutil.which("ffmpeg") is None:
        return False
    try:
        found = subprocess.run(["ffmpeg", *_QUIET, "-encoders"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " libx264 " in found.stdout


class _H264:
    """Frames through a pipe to ffmpeg; odd sides get a row or column of black, for 4:2:0 colours need even ones."""

    def __init__(self, file: Path, fps: float, width: int, height: int) -> None:
        self._file = file
        command = [
            "ffmpeg", *_QUIET, "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}",
            "-r", f"{fps:.6g}", "-i", "pipe:0", "-an", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264",
            "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart",
            "-f", "mp4", f"file:{file}",
        ]  # fmt: skip
        # a group of its own: an interrupt at the terminal must not end it before the last frame
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def write(self, image_bgr: Image) -> None:
        try:
            self._pipe.write(image_bgr.tobytes())
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        _, errors = self._process.communicate()
        if self._process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise StorageError("cannot write the video", file=self._file, got=lines[-1] if lines else "ffmpeg failed")


class _Mpeg4:
    def __init__(self, file: Path, fps: float, width: int, height: int) -> None:
        self._writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not self._writer.isOpened():
            raise StorageError("cannot write the video", file=file, hint="--no-draw writes the detections alone")

    def write(self, image_bgr: Image) -> None:
        self._writer.write(image_bgr)

    def close(self) -> None:
        self._writer.release()
