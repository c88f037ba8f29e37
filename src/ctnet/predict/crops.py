"""Crops of what was found, one file an object, in a folder for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ctnet.data.image import Image, write_image
from ctnet.files import path_component
from ctnet.predict.landmarks import aligned_crop, has_face_landmarks
from ctnet.predict.names import Names
from ctnet.predict.sources import Frame
from ctnet.types import Category, Detections, KeypointSchema


class Crops:
    """Writes crops into `folder/CLASS/SOURCE.jpg`, those of videos with the number of their frame.

    Faces with five landmarks are aligned, 112 x 112 pixels, as networks that recognise faces expect them; of other
    objects the box is cut out. `labels` are the classes of interest, None all of them.
    """

    def __init__(
        self,
        folder: Path,
        categories: Sequence[Category],
        keypoints: KeypointSchema | None = None,
        labels: frozenset[int] | None = None,
    ) -> None:
        self._folder = folder
        self._classes = [_folder_name(category) for category in categories]
        self._keypoints = keypoints
        self._labels = labels
        self._names: dict[str, Names] = {}

    def save(self, frame: Frame, found: Detections) -> None:
        """Write the crops of a frame's detections. Raises StorageError when the disk refuses."""
        aligned = has_face_landmarks(found.keypoints, self._keypoints)
        stem = frame.path.stem if frame.frame_number is None else f"{frame.path.stem}-{frame.frame_number:06}"
        for i, label in enumerate(found.labels.tolist()):
            if self._labels is not None and label not in self._labels:
                continue
            landmarks = found.keypoints[i] if aligned and found.keypoints is not None else None
            crop = None if landmarks is None else aligned_crop(frame.image_bgr, landmarks)
            crop = _cut(frame.image_bgr, found.boxes_xyxy[i].tolist()) if crop is None else crop
            if crop is not None:
                name = self._classes[label]
                file = self._names.setdefault(name.casefold(), Names()).take(stem, ".jpg")
                write_image(self._folder / name / file, crop)


def _folder_name(category: Category) -> str:
    try:
        return path_component(category.name)
    except ValueError:
        return f"class-{category.id}"


def _cut(image: Image, box: list[float]) -> Image | None:
    """Return the part of the image in the box, None where they do not meet."""
    height, width = image.shape[:2]
    if not all(map(math.isfinite, box)):
        return None
    x1, y1 = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    x2, y2 = min(math.ceil(box[2]), width), min(math.ceil(box[3]), height)
    return image[y1:y2, x1:x2] if x2 > x1 and y2 > y1 else None
