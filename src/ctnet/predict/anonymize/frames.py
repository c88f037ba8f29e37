"""The frames of a video once more, with their times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ctnet.data.image import Image

_LONGEST_PAUSE_S = 60.0


def timed_frames(video: Path, count: int, fps: float) -> Iterator[tuple[float, Image]]:
    """Yield the first `count` frames with their seconds since the first, which rise.

    Where a file states no times, or nonsense, frames come at the rate `fps`.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        first, before = 0.0, -1 / fps
        for number in range(count):
            read, image = capture.read()
            if not read:
                return
            stated = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if number == 0:
                first = stated
            seconds = stated - first
            if number == 0 or not 0 < seconds - before < _LONGEST_PAUSE_S:
                seconds = before + 1 / fps
                first = stated - seconds
            before = seconds
            yield seconds, np.asarray(image, np.uint8)
    finally:
        capture.release()
