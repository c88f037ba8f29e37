"""Rules about boxes: what is wrong with them, and which ones the network cannot distinguish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap

import numpy as np
from numpy.typing import NDArray

from ctnet.config.metadata import sound_categories
from ctnet.data.box_form import looks_like_corners, looks_normalised, reaches_outside
from ctnet.data.checks.entries import Tables
from ctnet.data.checks.findings import Finding, found
from ctnet.types import Category

_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Limits:
    """What the network can represent: input (height, width), pixels per cell, objects per image."""

    image_size: tuple[int, int] = (512, 512)
    stride: int = 4
    top_k: int = 100
    max_objects: int = 128


def check_boxes(tables: Tables, limits: Limits) -> Iterator[Finding]:
    """Yield findings about the boxes of one split."""
    yield from check_geometry(tables)
    yield from _counts(tables, limits)
    yield from _cells(tables, limits)


def check_learnable(tables: Tables) -> Iterator[Finding]:
    """Yield findings about what a split to train on lacks: any box that can be learned, or one of some class.

    That is a box which is no crowd region, has an area, and reaches into its image.
    """
    boxes, sizes = tables.boxes_xywh, tables.sizes_wh
    empty = np.minimum(boxes[:, 2], boxes[:, 3]) <= 0
    outside = ((boxes[:, :2] >= sizes) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(axis=1) & (sizes[:, 0] > 0)
    crowd = tables.crowd != 0
    usable = ~(empty | outside | crowd)
    if not usable.any() and tables.images:
        reasons = {"crowd regions": crowd, "without width or height": empty, "outside of their image": outside}
        counts = [f"{flags.sum()} {name}" for name, flags in reasons.items() if flags.any()]
        where = f", labels were sought in {tables.sought}" if tables.sought else ""
        words = f"{len(boxes)} boxes ({', '.join(counts)})" if len(boxes) else f"none has a box{where}"
        yield from found("boxes-unusable", tables.file, [f"{tables.split} of {len(tables.images)} images: {words}"])
        return
    used = set(tables.category[usable].tolist())
    unused = [name for label, name in enumerate(tables.category_names) if label not in used]
    yield from found("class-unused", tables.file, unused, of=len(tables.category_names))


def check_present(tables: Tables) -> Iterator[Finding]:
    """Yield findings about a split without images or boxes, or with categories that no weights could name."""
    yield from found("images-none", tables.file, [] if tables.images else [tables.split])
    try:
        sound_categories(tuple(starmap(Category, enumerate(tables.category_names))))
    except ValueError as error:
        yield from found("categories-refused", tables.file, [str(error)] if tables.images else [])
    none = [tables.split] if tables.images and not len(tables.boxes_xywh) else []
    yield from found("boxes-none", tables.file, none)


def check_geometry(tables: Tables) -> Iterator[Finding]:
    """Yield findings about boxes without area, outside of their image or in another form."""
    boxes, sizes = tables.boxes_xywh, tables.sizes_wh
    empty = np.minimum(boxes[:, 2], boxes[:, 3]) <= 0
    outside = reaches_outside(boxes, sizes) & (sizes[:, 0] > 0) & ~empty
    yield from found("box-empty", tables.file, _words(tables, empty), of=len(boxes))
    code = "box-corners" if looks_like_corners(boxes, sizes) else "box-outside"
    yield from found(code, tables.file, _words(tables, outside), of=len(boxes))
    yield from found("box-repeated", tables.file, _words(tables, _repeated(tables)), of=len(boxes))
    if looks_normalised(boxes, sizes):
        within_a_pixel = boxes.max(axis=1) <= 1
        yield from found("box-normalised", tables.file, _words(tables, within_a_pixel), of=len(boxes))


def _repeated(tables: Tables) -> NDArray[np.bool_]:
    """Return (N,) True for boxes that an earlier one of the same image and class equals."""
    keys = np.zeros(len(tables.image), np.uint64)
    for column in (tables.image, tables.category, *tables.boxes_xywh.T):
        keys = (keys ^ np.ascontiguousarray(column).view(np.uint64)) * _ODD
        keys ^= keys >> np.uint64(29)
    repeated = np.ones(len(keys), np.bool_)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def check_unannotated(tables: Tables) -> Iterator[Finding]:
    """Yield a finding about images without boxes."""
    counts = np.bincount(tables.image, minlength=len(tables.images))
    names = [tables.images[i].name for i in np.flatnonzero(counts == 0)]
    yield from found("image-unannotated", tables.file, names, of=len(tables.images))


def _counts(tables: Tables, limits: Limits) -> Iterator[Finding]:
    yield from check_unannotated(tables)
    counts = np.bincount(tables.image, minlength=len(tables.images)).tolist()
    pairs = list(zip(tables.images, counts, strict=True))
    crowded = []
    for image, count in pairs:
        needed = {"evaluation.top_k": limits.top_k, "data.max_objects": limits.max_objects}
        settings = [f"{key}={count}" for key, limit in needed.items() if count > limit]
        if settings:
            crowded.append(f"{image.name}: {count} boxes, needs {' '.join(settings)}")
    yield from found("image-crowded", tables.file, crowded)


def _cells(tables: Tables, limits: Limits) -> Iterator[Finding]:
    """Compare boxes with the output cells that they fall on when images are fitted into the input."""
    boxes, sizes = tables.boxes_xywh, tables.sizes_wh
    usable = (np.minimum(boxes[:, 2], boxes[:, 3]) > 0) & (sizes[:, 0] > 0) & (tables.crowd == 0)
    target = np.array(limits.image_size[::-1], np.float64)
    scale = (target / np.maximum(sizes, 1)).min(axis=1, keepdims=True)
    tiny = usable & (np.minimum(boxes[:, 2], boxes[:, 3]) * scale[:, 0] < limits.stride)
    yield from found("box-tiny", tables.file, _words(tables, tiny), of=len(boxes))
    centres = (boxes[:, :2] + boxes[:, 2:] / 2 - sizes / 2) * scale + target / 2
    cells = np.floor(centres / limits.stride).astype(np.int64)
    keys = np.column_stack([tables.image, tables.category, cells])
    _, group, members = np.unique(keys[usable], axis=0, return_inverse=True, return_counts=True)
    collide = np.zeros(len(boxes), np.bool_)
    collide[usable] = members[group.reshape(-1)] > 1
    yield from found("centres-collide", tables.file, _words(tables, collide), of=len(boxes))


def _words(tables: Tables, flags: NDArray[np.bool_]) -> list[str]:
    return [tables.where(int(i)) for i in np.flatnonzero(flags)]
