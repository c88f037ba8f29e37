"""Anonymised videos, written with the sound, the codec and the times of their sources."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Protocol

import cv2
import numpy as np

from ctnet.data.image import Image
from ctnet.errors import CtnetError, DataError, StorageError
from ctnet.files import temporary_beside, writing
from ctnet.predict.anonymize.ffmpeg import QUIET, Contents, encoders, find_ffmpeg, local_file, look_into, passes_frames

TICKS = 60_000
"""a second; all usual rates of frames are a whole number of them"""


class Encoder(NamedTuple):
    """An encoder of ffmpeg and its options; of quality, they ask for what the eye does not tell from the source."""

    name: str
    options: tuple[str, ...] = ()


_H264 = Encoder("libx264", ("-preset", "veryfast", "-crf", "20"))
_ENCODERS = {
    "h264": (_H264,),
    "hevc": (Encoder("libx265", ("-preset", "fast", "-crf", "22", "-x265-params", "log-level=none")),),
    "av1": (
        Encoder("libsvtav1", ("-preset", "8", "-crf", "30")),
        Encoder("libaom-av1", ("-crf", "28", "-cpu-used", "6", "-row-mt", "1")),
    ),
    "vp8": (Encoder("libvpx", ("-crf", "10", "-b:v", "4M", "-deadline", "realtime", "-cpu-used", "4")),),
    "vp9": (
        Encoder("libvpx-vp9", ("-crf", "30", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "5", "-row-mt", "1")),
    ),
    "mpeg4": (Encoder("mpeg4", ("-q:v", "3")),),
    "mpeg2video": (Encoder("mpeg2video", ("-q:v", "3")),),
    "mpeg1video": (Encoder("mpeg1video", ("-q:v", "3")),),
    "mjpeg": (Encoder("mjpeg", ("-q:v", "3", "-pix_fmt", "yuvj420p")),),
}
_MUXERS = {
    ".mp4": ("mp4", "-movflags", "+faststart"), ".m4v": ("mp4", "-movflags", "+faststart"),
    ".mov": ("mov", "-movflags", "+faststart"), ".mkv": ("matroska",), ".webm": ("webm",), ".avi": ("avi",),
    ".mpg": ("mpeg",), ".mpeg": ("mpeg",), ".ts": ("mpegts",), ".mts": ("mpegts",), ".m2ts": ("mpegts",),
    ".flv": ("flv",), ".3gp": ("3gp",),
}  # fmt: skip
_KEEPS_TIMES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})
"""containers of frames with any distance in time"""


class CopyPlan(NamedTuple):
    """How a video is copied: suffix and codec of the copy, what the source holds, sentences on what is not kept.

    Without an encoder OpenCV writes it, because there is no ffmpeg.
    """

    suffix: str
    codec: str
    contents: Contents
    encoder: Encoder | None
    notes: tuple[str, ...]


class _Sink(Protocol):
    def write(self, image_bgr: Image, seconds: float) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class VideoCopy:
    """Writes the changed frames of `source` to a video; a context manager that leaves a whole video or none.

    Raises DataError when ffmpeg cannot write it, StorageError when the disk refuses.
    """

    def __init__(
        self, source: Path, file: Path, plan: CopyPlan, fps: float, size_hw: tuple[int, int], *, metadata: bool
    ) -> None:
        self._file = file
        self._partial = temporary_beside(file, file.suffix)
        command = find_ffmpeg()
        self._sink: _Sink = (
            _Mpeg4(self._partial, fps, size_hw)
            if command is None or plan.encoder is None
            else _Ffmpeg(
                command, self._partial, size_hw, _output_options(command, source, plan, fps, metadata=metadata)
            )
        )

    def __enter__(self) -> VideoCopy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._sink.abandon()
                return
            self._sink.close()
            with writing(self._file):
                self._partial.replace(self._file)
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, image_bgr: Image, seconds: float) -> None:
        """Add a frame that is shown `seconds` after the first one."""
        self._sink.write(image_bgr, seconds)


def plan_copy(source: Path) -> CopyPlan:
    """Return what will be kept of a video: all of it with ffmpeg, MPEG-4 images alone without."""
    command = find_ffmpeg()
    if command is None:
        note = f"{source.name} becomes an MPEG-4 video without sound, for ffmpeg is not installed"
        note += '; pip install "ctnet-toolkit[video]" brings it'
        return CopyPlan(".mp4", "mpeg4", Contents(), None, (note,))
    contents = look_into(command, source)
    encoder, codec = _encoder(command, contents.codec)
    suffix = source.suffix.lower() if source.suffix.lower() in _MUXERS else ".mkv"
    notes: tuple[str, ...] = ()
    if suffix != source.suffix.lower():
        notes += (f"{source.name} becomes a Matroska file, for {source.suffix or 'its format'} is not written",)
    if codec != contents.codec:
        notes += (f"{source.name} becomes {codec}, for this ffmpeg does not write {contents.codec or 'its codec'}",)
    return CopyPlan(suffix, codec, contents, encoder, notes)


def _encoder(command: str, codec: str | None) -> tuple[Encoder, str]:
    """Return the encoder for a codec and the codec that it writes: H.264, else MPEG-4, where there is none for it."""
    available = encoders(command)
    for name in (codec, "h264", "mpeg4"):
        for encoder in _ENCODERS.get(name or "", ()):
            if encoder.name in available:
                return encoder, name or ""
    return _ENCODERS["mpeg4"][0], "mpeg4"


class _Ffmpeg:
    """Frames with their times, as raw video in an IVF stream, through a pipe to ffmpeg.

    Colours are 4:2:0, so odd sides get one more row or column, which repeats the last.
    """

    def __init__(self, command: str, file: Path, size_hw: tuple[int, int], options: list[str]) -> None:
        self._file = file
        self._odd = [side % 2 for side in size_hw]
        self._ticks = -1
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        # a group of its own: an interrupt at the terminal is for ctnet, which then ends it
        self._process = subprocess.Popen(
            [command, *QUIET, "-y", *options, f"file:{file}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=self._errors, start_new_session=True,
        )  # fmt: skip
        height, width = (side + odd for side, odd in zip(size_hw, self._odd, strict=True))
        self._send(struct.pack("<4s2H4s2H4I", b"DKIF", 0, 32, b"I420", width, height, TICKS, 1, 0, 0))

    def write(self, image_bgr: Image, seconds: float) -> None:
        if any(self._odd):
            image_bgr = np.asarray(
                cv2.copyMakeBorder(image_bgr, 0, self._odd[0], 0, self._odd[1], cv2.BORDER_REPLICATE)
            )
        raw = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420)
        self._ticks = max(round(seconds * TICKS), self._ticks + 1)
        self._send(struct.pack("<IQ", raw.nbytes, self._ticks))
        self._send(raw.data)

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, content: bytes | memoryview) -> None:
        try:
            self._pipe.write(content)
        except OSError:
            self._wait()
            raise self._refused() from None

    def close(self) -> None:
        if self._wait() != 0 or not self._file.is_file():
            raise self._refused()

    def abandon(self) -> None:
        self._process.kill()
        self._wait()

    def _wait(self) -> int:
        with suppress(OSError):  # it may have ended before it had read everything
            self._pipe.close()
        return self._process.wait()

    def _refused(self) -> CtnetError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        kind = StorageError if any("No space left" in line for line in lines) else DataError
        return kind("ffmpeg cannot write the video", file=self._file.name, got=lines[-1] if lines else None)


def _output_options(command: str, source: Path, plan: CopyPlan, fps: float, *, metadata: bool) -> list[str]:
    """Return the options of an ffmpeg that gets frames through its pipe and all else from the source."""
    assert plan.encoder is not None
    origin = "1" if metadata else "-1"  # title, place and time of recording
    muxer, *container = _MUXERS[plan.suffix]
    return [
        "-itsoffset", f"{plan.contents.delay_s:.6f}", "-f", "ivf", "-i", "pipe:0", *local_file(source),
        "-map", "0:v:0", "-map", "1:a?", "-map", "1:s?", "-c:a", "copy", "-c:s", "copy",
        "-map_metadata", origin, "-map_chapters", origin,
        *_picture(command, plan.encoder, plan.contents, plan.suffix, fps), *container, "-f", muxer,
    ]  # fmt: skip


def _picture(command: str, encoder: Encoder, contents: Contents, suffix: str, fps: float) -> list[str]:
    """Return the options of the video stream."""
    if suffix in _KEEPS_TIMES:
        times = [*passes_frames(command), "passthrough", "-enc_time_base", f"1:{TICKS}"]
    else:
        times = [*passes_frames(command), "cfr", "-r", f"{fps:.6f}"]
    shape = contents.pixel_shape
    pixels = ["-vf", f"setsar={shape.numerator}/{shape.denominator}"] if shape != 1 else []
    tag = ["-tag:v", "hvc1"] if encoder.name == "libx265" and suffix in (".mp4", ".m4v", ".mov") else []
    return ["-c:v", encoder.name, "-pix_fmt", "yuv420p", *encoder.options, *times, *pixels, *tag]


class _Mpeg4:
    """MPEG-4 without sound through OpenCV; frames that come late are shown again, so that the duration stays."""

    def __init__(self, file: Path, fps: float, size_hw: tuple[int, int]) -> None:
        self._fps = fps
        self._written = 0
        height, width = size_hw
        self._writer = cv2.VideoWriter(os.fspath(file), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not self._writer.isOpened():
            raise StorageError("cannot write the video", file=file.name, hint="ffmpeg writes more kinds of videos")

    def write(self, image_bgr: Image, seconds: float) -> None:
        while self._written <= round(seconds * self._fps):
            self._writer.write(image_bgr)
            self._written += 1

    def close(self) -> None:
        self._writer.release()

    abandon = close
