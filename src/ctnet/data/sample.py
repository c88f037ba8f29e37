"""One training sample: a picture, warped and coloured, with its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.affine import Matrix, after_enlarging, magnification, warp
from ctnet.codec.encode import CenterTargets, encode_centers
from ctnet.config import Augment
from ctnet.data.augment import jitter_colors, lighting_shift, random_matrix, warp_boxes
from ctnet.data.image import read_image
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Float32, ImageRecord, TargetRules


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
    rules: TargetRules = "centernet"
    dense_size: bool = False

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        record = self.annotations.images[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        matrix = random_matrix(rng, (record.height, record.width), self.input_hw, self.augment)
        image = self._view(record, matrix)
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
        targets = encode_centers(cells, labels, classes, map_hw, rules=self.rules, dense_size=self.dense_size)
        return Sample(image, lighting_shift(rng, self.augment.lighting), targets, record.id)

    def _view(self, record: ImageRecord, matrix: Matrix) -> NDArray[np.uint8]:
        """Return the picture mapped by `matrix`, decoded no larger than it is shown."""
        reduce = next((factor for factor in (4, 2) if factor * magnification(matrix) <= 1), 1)
        try:
            image = read_image(record.path, reduce)
            if reduce > 1 and image.shape[:2] != (-(-record.height // reduce), -(-record.width // reduce)):
                # not a JPEG, or not of the size that the annotations say
                reduce, image = 1, read_image(record.path)
        except DataError as error:
            facts = {**error.facts, "annotations": self.annotations.source, "image_id": record.id}
            raise DataError(error.message, hint=error.hint, **facts) from None
        return warp(image, after_enlarging(matrix, reduce), self.input_hw)
