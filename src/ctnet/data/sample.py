"""One training sample: an image, warped and coloured, with its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.affine import Matrix, after_enlarging, magnification, warp
from ctnet.config import Augment
from ctnet.data.augment import color_map, jitter_colors, lighting_shift, random_matrix, warp_boxes, warp_objects
from ctnet.data.image import read_image
from ctnet.data.value_range import ValueRange
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Float32, ImageRecord, Int64, Objects, Targets

_TRIES = 100
"""images in a row that may be unreadable: beyond, it is not the images, but the disk"""


class Encoder(Protocol):
    """Turns the objects of an image into targets; picklable, for it runs in loader processes."""

    def __call__(self, objects: Objects, input_hw: tuple[int, int]) -> Targets:
        """Return the targets of objects in input pixels, not clipped, for an input of this size."""

    def rows(self, objects: Objects, input_hw: tuple[int, int]) -> Mapping[str, Any]:
        """Return the rows of the targets alone."""


class Sample(NamedTuple):
    """An image (H,W,3) BGR uint8, its colour shift (3,) or map (3,4), its targets and the id of its record.

    `wanted_id` is that of the record that was asked for; another one where that could not be read.
    """

    image: NDArray[np.uint8]
    lighting: Float32
    targets: Targets
    image_id: int
    wanted_id: int


@dataclass(frozen=True)
class TrainingSamples:
    """Samples by (epoch, index), perhaps with a repetition: a key always gives the same sample, in any process.

    With `skip_bad` the next image that can be read takes the place of one that cannot. Crowd regions are left out
    unless `crowd`, and of more than `max_objects` objects first those that the view does not show, then the last in
    file order.
    """

    annotations: AnnotationSet
    input_hw: tuple[int, int]
    encoder: Encoder
    augment: Augment
    seed: int
    max_objects: int
    value_range: ValueRange | None = None
    skip_bad: bool = False
    canvas: tuple[int, int, int] = (0, 0, 0)
    """BGR colour outside the image"""
    crowd: bool = False

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        epoch, index, *again = key
        wanted = self.annotations.images[index].id
        tries = min(len(self), _TRIES) if self.skip_bad else 1
        for step in range(tries):
            try:
                return self._sample(epoch, (index + step) % len(self), again)._replace(wanted_id=wanted)
            except DataError as error:
                if step == 0:
                    first = error
        raise first

    def _sample(self, epoch: int, index: int, again: Sequence[int] = ()) -> Sample:
        record = self.annotations.images[index]
        rng = np.random.default_rng((self.seed, epoch, index, *again))
        objects, matrix = self._objects(record, rng)
        image = self._view(record, matrix)
        strength = self.augment.photometric
        targets = self.encoder(objects, self.input_hw)
        if strength > 0 and self.augment.jitter == "float":
            colors = color_map(rng, image, strength, lighting_shift(rng, self.augment))
            return Sample(image, colors, targets, record.id, record.id)
        if strength > 0:
            image = jitter_colors(rng, image, strength)
        return Sample(image, lighting_shift(rng, self.augment), targets, record.id, record.id)

    def rows(self, images: int = 1000) -> dict[str, Any]:
        """Return the rows of the targets of the first epoch, end to end; no image is read.

        Of so many images at most, spread over the set.
        """
        parts = []
        for index in np.linspace(0, len(self) - 1, min(len(self), images)).astype(int):
            record = self.annotations.images[index]
            objects, _ = self._objects(record, np.random.default_rng((self.seed, 0, int(index))))
            parts.append(self.encoder.rows(objects, self.input_hw))
        return {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}

    def _objects(self, record: ImageRecord, rng: np.random.Generator) -> tuple[Objects, Matrix]:
        """Return the objects to train on, in input pixels, not clipped, and the map of the view that shows them."""
        objects = record.objects.select(~record.crowd | self.crowd)
        matrix = random_matrix(rng, (record.height, record.width), self.input_hw, self.augment, objects.boxes_xyxy)
        if len(objects) > self.max_objects:
            objects = objects.select(self._chosen(warp_boxes(objects.boxes_xyxy, matrix), rng))
        # a box without area would gain some when a rotated view is bounded
        objects = objects.select((objects.boxes_xyxy[:, 2:] > objects.boxes_xyxy[:, :2]).all(1))
        return warp_objects(objects, matrix, self.annotations.keypoints), matrix

    def _chosen(self, boxes_xyxy: Float32, rng: np.random.Generator) -> Int64:
        """Return the indices of the objects that are trained on when there are too many."""
        if self.augment.crop == "centerface":
            return rng.choice(len(boxes_xyxy), self.max_objects)
        end = np.array(self.input_hw[::-1], np.float32)
        shown = ((boxes_xyxy[:, 2:] > 0) & (boxes_xyxy[:, :2] < end)).all(1)
        return np.flatnonzero(shown)[: self.max_objects]

    def _view(self, record: ImageRecord, matrix: Matrix) -> NDArray[np.uint8]:
        """Return the image mapped by `matrix`, decoded no larger than it is shown."""
        reduce = next((factor for factor in (4, 2) if factor * magnification(matrix) <= 1), 1)
        try:
            image = read_image(record.path, reduce, self.value_range)
            if reduce > 1 and image.shape[:2] != (-(-record.height // reduce), -(-record.width // reduce)):
                # not a JPEG, or not of the size that the annotations say
                reduce, image = 1, read_image(record.path, value_range=self.value_range)
        except DataError as error:
            facts = {**error.facts, "annotations": self.annotations.source, "image_id": record.id}
            raise DataError(error.message, hint=error.hint, **facts) from None
        return warp(image, after_enlarging(matrix, reduce), self.input_hw, self.canvas)
