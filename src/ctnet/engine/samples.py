"""Images of targets and predictions during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data.draw import contact_sheet, draw_boxes
from ctnet.data.image import read_image, write_image
from ctnet.data.loader import Batch
from ctnet.families import Family
from ctnet.types import AnnotationSet, Category, Detections


def write_target_sheet(path: Path, family: Family, batch: Batch, categories: Sequence[Category]) -> None:
    """Write a batch as the network sees it: boxes read back from the targets over the heatmap's glow."""
    images = []
    for image, (objects, heat) in zip(batch.images.numpy(), family.taught(batch.targets), strict=True):
        glowing = image if heat is None else _glow(image, heat.numpy())
        boxes, points = objects.boxes_xyxy, objects.keypoints
        images.append(draw_boxes(glowing, boxes, objects.labels, categories, None, points, family.keypoints))
    write_image(path, contact_sheet(images))


def _glow(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    large = np.asarray(cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    warm = np.array([60, 200, 255], np.float32)
    mix = 0.45 * large[..., None]
    return (image * (1 - mix) + warm * mix).astype(np.uint8)


def write_prediction_sheet(
    path: Path,
    annotations: AnnotationSet,
    detections: dict[int, Detections],
    categories: Sequence[Category],
    score: float = 0.3,
    count: int = 9,
) -> None:
    """Write images spread evenly over the set with the detections of at least `score`."""
    step = max(1, len(annotations.images) // count)
    drawn = []
    for record in annotations.images[::step][:count]:
        strong = detections[record.id].above(score)
        image = read_image(record.path)
        boxes, points, schema = strong.boxes_xyxy, strong.keypoints, annotations.keypoints
        drawn.append(draw_boxes(image, boxes, strong.labels, categories, strong.scores, points, schema))
    write_image(path, contact_sheet(drawn))
