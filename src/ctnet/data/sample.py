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
from ctnet.types import AnnotationSet, Float32, ImageRecord, Int64, TargetRules


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
        cells, labels = self._objects(record, matrix)
        classes = len(self.annotations.categories)
        targets = encode_centers(cells, labels, classes, self._map_hw, rules=self.rules, dense_size=self.dense_size)
        return Sample(image, lighting_shift(rng, self.augment.lighting), targets, record.id)

    def object_sizes(self, pictures: int = 1000) -> tuple[Float32, Int64]:
        """Return the widths and heights (N,2), in cells, and labels (N,) of objects as the first epoch shows them.

        Of so many pictures at most, spread over the set.
        """
        height, width = self._map_hw
        sizes, labels = [np.zeros((0, 2), np.float32)], [np.zeros(0, np.int64)]
        for index in np.linspace(0, len(self) - 1, min(len(self), pictures)).astype(int):
            record = self.annotations.images[index]
            rng = np.random.default_rng((self.seed, 0, int(index)))
            matrix = random_matrix(rng, (record.height, record.width), self.input_hw, self.augment)
            cells, kinds = self._objects(record, matrix)
            cells = cells.clip(0, np.array([width - 1, height - 1] * 2, np.float32))
            size = cells[:, 2:] - cells[:, :2]
            seen = (size > 0).all(1)
            sizes.append(size[seen])
            labels.append(kinds[seen])
        return np.concatenate(sizes), np.concatenate(labels)

    @property
    def _map_hw(self) -> tuple[int, int]:
        return self.input_hw[0] // self.stride, self.input_hw[1] // self.stride

    def _objects(self, record: ImageRecord, matrix: Matrix) -> tuple[Float32, Int64]:
        """Return the boxes (N,4) in cells, not clipped, and the labels (N,) to train on."""
        usable = np.flatnonzero(~record.crowd)[: self.max_objects]
        boxes = record.boxes_xyxy[usable]
        # a box without area would gain some when a rotated view is bounded
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return warp_boxes(boxes[has_area], matrix / self.stride), record.labels[usable][has_area]

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
