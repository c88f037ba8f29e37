"""Image records of layouts that number neither images nor boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctnet.types import Float32, ImageRecord, Int64


class Records:
    """Collects image records; images and boxes are numbered from 1, and areas are those of the boxes."""

    def __init__(self) -> None:
        self.images: list[ImageRecord] = []
        self._boxes = 0

    def add(
        self, path: Path, size_hw: tuple[int, int], boxes_xyxy: Float32, labels: Int64, image_id: int,
        keypoints: Float32 | None = None, crowd: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Add an image of (height, width) with its (N,4) boxes in pixels, (N,) labels and perhaps (N,P,3) points.

        Of `crowd` (N,) none is one unless stated.
        """
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
                crowd=np.zeros(len(labels), np.bool_) if crowd is None else crowd,
                areas=np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1, dtype=np.float32),
                annotation_ids=ids,
                keypoints=keypoints,
            )
        )
