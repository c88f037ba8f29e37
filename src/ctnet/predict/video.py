"""Videos and streams through OpenCV: what is one, and its frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ctnet.data.image import Image, require_decodable
from ctnet.data.image_header import Header
from ctnet.errors import DataError

_CONTAINERS = (
    (rb"....ftyp|....moov|....mdat|....wide", (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".qt")),
    (rb"RIFF....AVI ", (".avi", ".divx")),
    (rb"\x1aE\xdf\xa3", (".mkv", ".webm")),
    (rb"0&\xb2u\x8ef\xcf\x11", (".wmv", ".asf")),
    (rb"FLV\x01", (".flv", ".f4v")),
    (rb"\0\0\x01[\xb3\xba]", (".mpg", ".mpeg", ".vob", ".mpe")),
    (rb"G.{187}G|.{4}G.{191}G", (".ts", ".mts", ".m2ts")),
    (rb"OggS", (".ogv", ".ogg")),
)
"""how containers begin that OpenCV's wheels read, and their suffixes"""
VIDEO_SUFFIXES = frozenset(suffix for _, suffixes in _CONTAINERS for suffix in suffixes) | {".mjpeg", ".mjpg", ".mxf"}
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
"""decoders do not write to the terminal, a line for every broken block; OpenCV looks at this once"""
_USUAL_FPS = 25.0
_LOST = 0.02
"""share of the frames in a header that may be missing before anything is reported: headers estimate"""


def begins_video(head: bytes) -> bool:
    """Return whether the first bytes are those of a container of videos, as far as they are not those of an image."""
    return any(re.match(start, head, re.DOTALL) for start, _ in _CONTAINERS)


def open_capture(source: str | int, file: Path) -> cv2.VideoCapture:
    """Return what OpenCV reads from a path, an address or the number of a camera; errors name `file`.

    Raises DataError when it cannot be opened or its
    frames are too large.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        capture.release()
        raise DataError("the video cannot be opened", file=file)
    height, width = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    require_decodable(Header(height, width), file)
    return capture


def count_frames(capture: cv2.VideoCapture) -> int:
    """Return the number of frames that the header states, 0 for none."""
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(stated) if 0 < stated < 1e9 else 0


class VideoFrame(NamedTuple):
    """A frame (H,W,3) BGR uint8, its number from 0 and the frames per second."""

    image_bgr: Image
    number: int
    fps: float


def read_frames(capture: cv2.VideoCapture, file: Path, most: int | None = None) -> Iterator[VideoFrame]:
    """Yield the frames, at most so many. Raises DataError, after the last one, where the header states more of them.

    The capture is released.
    """
    try:
        # Some containers state no rate, or nonsense such as NaN or 90000.
        stated = capture.get(cv2.CAP_PROP_FPS)
        fps = stated if 0 < stated <= 1000 else _USUAL_FPS
        expected = count_frames(capture)
        number = 0
        while most is None or number < most:
            read, image = capture.read()
            if not read:
                break
            yield VideoFrame(np.asarray(image, np.uint8), number, fps)
            number += 1
        else:
            return
    finally:
        capture.release()
    if number == 0:
        raise DataError("the video cannot be decoded", file=file)
    if expected - number > max(1, _LOST * expected):
        raise DataError(
            f"the video is damaged: {number} of {expected} frames could be read", file=file,
            lost=expected - number, hint="`ffmpeg -i FILE -c copy NEW.mp4` repairs some containers",
        )  # fmt: skip
