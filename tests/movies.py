"""Videos and a detector of green patches, for tests of what is hidden in videos."""

import subprocess
from pathlib import Path

import cv2
import numpy as np

from ctnet.config import Recipe
from ctnet.families import family_of
from ctnet.predict.anonymize.ffmpeg import find_ffmpeg
from ctnet.types import Category, Detections

GREEN = (40, 200, 40)


class Patches:
    """Finds green patches (faces) and red ones (plates) by their colour; larger ones are surer."""

    recipe = Recipe(name="patches")
    family = family_of(recipe)
    categories = (Category(1, "face"), Category(2, "plate"))
    notes = ()

    def __init__(self):
        self.seen = 0

    def how_it_runs(self):
        return "by colour"

    def detect(self, images_bgr, settings=None):
        self.seen += len(images_bgr)
        return [self._patches(image) for image in images_bgr]

    def _patches(self, image):
        boxes, labels = [], []
        blue, green, red = (image[:, :, i].astype(int) for i in range(3))
        for label, (strong, weak) in enumerate([(green, red), (red, green)]):
            mask = ((strong > 130) & (weak < 110) & (blue < 110)).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
            for x, y, w, h, area in stats[1:]:
                if area > 60:
                    boxes.append((x, y, x + w, y + h))
                    labels.append(label)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32), np.array(labels, np.int64)
        )


def background(width=160, height=120):
    """Return stripes, in which anything that was hidden is seen."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[:, ::4] = (160, 120, 120)
    return image


def scene(frame, hidden=(), start=(20, 40), speed=2, size=(24, 30), color=GREEN):
    """Return a frame in which a patch moves to the right, as if behind something in `hidden` frames."""
    image = background()
    x = start[0] + speed * frame
    if frame not in hidden:
        image[start[1] : start[1] + size[1], max(x, 0) : max(x + size[0], 0)] = color
    return image


def write_movie(path: Path, images, fps=10, sound=True, codec=("-c:v", "libx264", "-crf", "12"), more=()):
    """Write a video, and a tone where it has sound."""
    images = list(images)
    height, width = images[0].shape[:2]
    tone = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={len(images) / fps}"] if sound else []
    subprocess.run(
        [
            find_ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}",
            "-r", str(fps), "-i", "pipe:0", *tone, *codec, "-pix_fmt", "yuv420p", *more, str(path),
        ],
        input=b"".join(image.tobytes() for image in images), check=True,
    )  # fmt: skip
    return path


def read_movie(path: Path):
    """Return the frames and their times in seconds."""
    capture = cv2.VideoCapture(str(path))
    frames, times = [], []
    while True:
        read, image = capture.read()
        if not read:
            return frames, times
        frames.append(image)
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
