"""Sources that are no files: cameras, addresses and standard input."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from ctnet.data.image import suffixes_of
from ctnet.errors import DataError
from ctnet.limits import TEXT_BYTES, TooMuch, image_pixels
from ctnet.predict.video import VideoFrame, begins_video, open_capture, read_frames

STDIN = "-"
_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "srt")
_CHUNK = 1 << 20
_NEXT_IMAGE = re.compile(rb"(?<=\xff\xd9)(?=\xff\xd8\xff)|(?<=IEND\xaeB`\x82)(?=\x89PNG)")
_HEAD = 256


@dataclass(frozen=True)
class Stream:
    """A camera by its number, or a video by its address. `name` is that of files, `shown` that in documents."""

    source: str | int
    name: Path
    shown: str

    def frames(self, most: int | None = None) -> Iterator[VideoFrame]:
        """Yield the frames until it ends, at most so many. Raises DataError when it cannot be opened."""
        return read_frames(open_capture(self.source, Path(self.shown)), Path(self.shown), most)


def as_stream(argument: str) -> Stream | None:
    """Return the stream that an argument names: a number that no file is called, or an address; None for others."""
    if argument.isascii() and argument.isdigit() and len(argument) < 4 and not Path(argument).exists():
        return Stream(int(argument), Path(f"camera-{int(argument)}"), f"camera {int(argument)}")
    parts = urlsplit(argument) if "://" in argument else None
    if parts is None:
        return None
    if parts.scheme.lower() not in _SCHEMES:
        raise DataError("this kind of address is not read", source=argument, expected=", ".join(_SCHEMES))
    shown = argument.replace(f"{parts.netloc.rpartition('@')[0]}@", "") if "@" in parts.netloc else argument
    stem = re.sub(r"[^\w.-]+", "_", f"{parts.hostname or ''}{parts.path}").strip("_.") or "stream"
    return Stream(argument, Path(stem), shown)


@dataclass(frozen=True)
class Stdin:
    """Images, one behind the other, or a video, on standard input."""

    stream: BinaryIO
    is_video: bool

    def images(self) -> Iterator[tuple[Path, bytes]]:
        """Yield a name and the bytes of each image. Raises DataError for one of more bytes than an image may have."""
        most = 8 * image_pixels().most
        waiting, number = b"", 0
        while chunk := self.stream.read1(_CHUNK) if hasattr(self.stream, "read1") else self.stream.read(_CHUNK):
            *whole, waiting = _NEXT_IMAGE.split(waiting + chunk)
            for content in whole:
                number += 1
                yield _name(number, content), content
            if len(waiting) > most:
                raise DataError("the image is too large", file=STDIN, got=f"more than {most:,} bytes")
        if waiting:
            yield _name(number + 1, waiting), waiting

    def video(self, most: int | None = None) -> Iterator[VideoFrame]:
        """Yield the frames of a video, which is stored in a temporary file: players have to seek."""
        with tempfile.NamedTemporaryFile(prefix="ctnet-") as file:
            shutil.copyfileobj(self.stream, file)
            file.flush()
            yield from read_frames(open_capture(file.name, Path(STDIN)), Path(STDIN), most)


def _name(number: int, content: bytes) -> Path:
    return Path(f"stdin-{number:06}{next(iter(suffixes_of(content)), '')}")


def open_stdin() -> Stdin | list[str]:
    """Return the images or the video on standard input, or the names of sources in its lines. Raises DataError."""
    stream = sys.stdin.buffer
    head = stream.peek(_HEAD)[:_HEAD] if hasattr(stream, "peek") else b""
    if suffixes_of(head):
        return Stdin(stream, is_video=False)
    if begins_video(head):
        return Stdin(stream, is_video=True)
    text = stream.read(TEXT_BYTES.most + 1)
    try:
        TEXT_BYTES.check(len(text))
        lines = [line for line in text.decode().splitlines() if line.strip()]
    except (TooMuch, UnicodeDecodeError) as error:
        raise DataError("standard input cannot be read", got=error, expected=_EXPECTED) from None
    if not lines or STDIN in lines:
        raise DataError("standard input names no source", expected=_EXPECTED)
    return lines


_EXPECTED = "images, a video, or the names of files, one a line"
