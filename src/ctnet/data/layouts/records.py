"""Image records of layouts that number neither images nor boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctnet.data.image_size import read_image_size
from ctnet.errors import DataError
from ctnet.types import Float32, ImageRecord, Int64


class Records:
    """Collects image records; images and boxes are numbered from 1, areas are those of the boxes."""

    def __init__(self) -> None:
        self.images: list[ImageRecord] = []
        self._boxes = 0

    def size_of(self, path: Path, image_id: int) -> tuple[int, int] | None:
        """Return (height, width) of the image; one that cannot be read is added without objects, for others to find."""
        try:
            return read_image_size(path)
        except DataError:
            self.add(path, (1, 1), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), image_id)
            return None

    def add(
        self,
        path: Path,
        size_hw: tuple[int, int],
        boxes_xyxy: Float32,
        labels: Int64,
        image_id: int,
        crowd: Sequence[bool] | None = None,
        keypoints: Float32 | None = None,
    ) -> None:
        """Add an image of (height, width) with (N,4) boxes in pixels, labels (N,), maybe (N,P,3) points and crowds."""
        ids = np.arange(self._boxes + 1, self._boxes + len(labels) + 1, dtype=np.int64)
        self._boxes += len(labels)
        self.images.append(
            ImageRecord(
                id=image_id,
                path=path,
                width=size_hw[1],
                height=size_hw[0],
                boxes_xyxy=boxes_xyxy,
                labels=labels,
                crowd=np.array(crowd if crowd is not None else [False] * len(labels), np.bool_),
                areas=np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1, dtype=np.float32),
                annotation_ids=ids,
                keypoints=keypoints,
            )
        )
