"""One training sample: a picture, warped and coloured, with its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.affine import warp
from ctnet.codec.encode import CenterTargets, encode_centers
from ctnet.config import Augment
from ctnet.data.augment import jitter_colors, lighting_shift, random_matrix, warp_boxes
from ctnet.data.image import read_image
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Float32


class Sample(NamedTuple):
    """A picture (H,W,3) BGR uint8, its colour shift (3,), its targets and the id of its record."""

    image: NDArray[np.uint8]
    lighting: Float32
    targets: CenterTargets
    image_id: int


@dataclass(frozen=True)
class TrainingSamples:
    """Samples by (epoch, index): the same pair always gives the same sample, in any process.

    Crowd regions and all objects beyond `max_objects`, in file order, are left out.
    """

    annotations: AnnotationSet
    input_hw: tuple[int, int]
    stride: int
    augment: Augment
    seed: int
    max_objects: int
    dense_size: bool = False

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        record = self.annotations.images[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        try:
            image = read_image(record.path)
        except DataError as error:
            facts = {**error.facts, "annotations": self.annotations.source, "image_id": record.id}
            raise DataError(error.message, hint=error.hint, **facts) from None
        height, width = image.shape[:2]
        matrix = random_matrix(rng, (height, width), self.input_hw, self.augment)
        image = warp(image, matrix, self.input_hw)
        if self.augment.photometric > 0:
            image = jitter_colors(rng, image, self.augment.photometric)
        usable = np.flatnonzero(~record.crowd)[: self.max_objects]
        boxes = record.boxes_xyxy[usable]
        # a box without area would gain some when a rotated view is bounded
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, labels = boxes[has_area], record.labels[usable][has_area]
        map_hw = (self.input_hw[0] // self.stride, self.input_hw[1] // self.stride)
        cells = warp_boxes(boxes, matrix / self.stride)
        classes = len(self.annotations.categories)
        targets = encode_centers(cells, labels, classes, map_hw, dense_size=self.dense_size)
        return Sample(image, lighting_shift(rng, self.augment.lighting), targets, record.id)
