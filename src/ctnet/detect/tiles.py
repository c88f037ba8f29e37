"""Tiles of large images, which show small objects larger (Akyon et al., "Slicing Aided Hyper Inference", 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctnet.types import Detections, Float32

_CLOSE_PX = 2.0
"""a box that ends so close to the edge of a tile is taken for a part of a larger one"""
_COVERED = 0.6
"""share of a cut box that lies in a whole one of its class for it to be the same object"""


class Region(NamedTuple):
    """A part of an image in its pixels: x1, y1, x2, y2."""

    x1: int
    y1: int
    x2: int
    y2: int


def tile_regions(image_hw: tuple[int, int], side: int, overlap: float) -> list[Region]:
    """Return square tiles that cover an image, row by row; none where one tile would hold all of it.

    Neighbours share at least the part `overlap` of their side; the last tiles of rows and columns end with the image.
    """
    rows, columns = (_starts(length, side, overlap) for length in image_hw)
    if len(rows) == len(columns) == 1:
        return []
    height, width = image_hw
    return [Region(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    step = max(1, int(side * (1 - overlap)))
    return [*range(0, length - side, step), max(0, length - side)]


def without_parts(parts: Sequence[Detections], regions: Sequence[Region | None]) -> list[Detections]:
    """Return the detections of views without boxes that a tile cut out of an object that another view shows whole.

    `regions` are those of the views, None for the whole image.
    """
    tiles = [region for region in regions if region]
    if not tiles:
        return list(parts)
    right, bottom = max(tile.x2 for tile in tiles), max(tile.y2 for tile in tiles)
    cut = [_cut(part.boxes_xyxy, region, right, bottom) for part, region in zip(parts, regions, strict=True)]
    boxes = np.concatenate([part.boxes_xyxy[~flags] for part, flags in zip(parts, cut, strict=True)])
    labels = np.concatenate([part.labels[~flags] for part, flags in zip(parts, cut, strict=True)])
    kept = []
    for part, flags in zip(parts, cut, strict=True):
        drop = np.zeros(len(part), np.bool_)
        for i in np.flatnonzero(flags):
            drop[i] = _covered(part.boxes_xyxy[i], boxes[labels == part.labels[i]])
        kept.append(part.select(~drop))
    return kept


def _cut(boxes: Float32, region: Region | None, right: int, bottom: int) -> NDArray[np.bool_]:
    """Return (N,) True for boxes that end at an edge of their tile that is none of the image."""
    if region is None:
        return np.zeros(len(boxes), np.bool_)
    inner = np.array([region.x1 > 0, region.y1 > 0, region.x2 < right, region.y2 < bottom])
    beyond = np.concatenate([boxes[:, :2] - region[:2], np.array(region[2:]) - boxes[:, 2:]], 1)
    return np.asarray(((beyond < _CLOSE_PX) & inner).any(1), np.bool_)


def _covered(box: Float32, others: Float32) -> bool:
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(1)
    area = max(float((box[2:] - box[:2]).prod()), 1e-6)
    return bool((shared > _COVERED * area).any())
