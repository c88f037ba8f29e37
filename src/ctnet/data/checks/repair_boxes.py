"""Boxes that are right in another frame: corners, fractions, another size of the image, the image before EXIF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ctnet.data.box_form import MARGIN_PX, looks_like_corners, looks_normalised
from ctnet.data.checks.entries import ImageEntry, Tables
from ctnet.data.checks.images import Look
from ctnet.data.layouts.coco import Box, read_area, read_box

Entry = dict[str, Any]
Move = tuple[str, Callable[[Box, Entry], Box]]
"""words for what is done to boxes, and the function that does it to a box of an image"""

_SAME_SIZE = 0.01
"""an image that differs by so little from what is stated is the one that boxes were drawn on"""


class Frames(NamedTuple):
    """What is to be done to the boxes of a set: to all of them, or to those of single images by id.

    `keep` are ids of images whose size cannot be corrected, because it is unknown how they are turned.
    """

    all: Move | None
    by_image: Mapping[int, Move]
    keep: frozenset[int] = frozenset()


def frames(tables: Tables, looks: Sequence[Look]) -> Frames:
    """Return in which frames boxes are that do not fit the images as they are."""
    boxes, sizes = tables.boxes_xywh, tables.sizes_wh
    if looks_like_corners(boxes, sizes):
        return Frames(("boxes converted from xyxy", _from_corners), {})
    if looks_normalised(boxes, sizes):
        return Frames(("boxes converted from fractions", _from_fractions), {})
    turned = {
        image.id: look.orientation for image, look in zip(tables.images, looks, strict=True) if is_turned(image, look)
    }
    unknown = frozenset(image_id for image_id, orientation in turned.items() if orientation < 5)
    moves = {image_id: ("boxes scaled with their image", _scaling(f)) for image_id, f in _scaled(tables, looks).items()}
    if not _fit_upright_alone(tables, looks, turned):
        moves |= {
            image_id: ("boxes turned with their image", _turning(orientation))
            for image_id, orientation in turned.items()
            if image_id not in unknown
        }
    return Frames(None, moves, unknown)


def is_turned(image: ImageEntry, look: Look) -> bool:
    """Return whether the image has the stated sides the other way round."""
    return (image.width, image.height) == (look.height, look.width) != (look.width, look.height)


def repaired_box(entry: Entry, image: Entry, frames: Frames, done: Counter[str]) -> Entry | None:
    """Return the annotation with its box within the image, None, counted, where none is left. `image` has its size."""
    box = read_box(entry.get("bbox"))
    if box is None:
        done["boxes dropped, not four finite numbers"] += 1
        return None
    move = frames.all or frames.by_image.get(image["id"])
    if move:
        what, convert = move
        box = convert(box, image)
        done[what] += 1
        masked = bool(entry.get("segmentation") or entry.get("keypoints"))
        done[f"masks and key points not {what.split()[1]}"] += masked and frames.all is None
    x, y, w, h = box
    if w < 0 or h < 0:
        swapped = min(x, x + w), min(y, y + h), abs(w), abs(h)
        if min(_clip(swapped, image["width"], image["height"])[2:]) > 0:
            done["boxes whose corners were exchanged"] += 1
            box = swapped
    clipped = _clip(box, image["width"], image["height"])
    if min(clipped[2:]) <= 0:
        done["boxes dropped, without width or height"] += 1
        return None
    if any(abs(new - old) > 1e-6 for new, old in zip(clipped, box, strict=True)):
        done["boxes clipped to their image"] += 1
        box = clipped
    stated = entry.get("area")
    area = read_area(stated)
    if stated is not None and area is None:
        done["areas computed anew"] += 1
    elif list(box) == list(entry["bbox"]):
        return dict(entry)
    return {**entry, "bbox": list(box), "area": _area(area, box, converted=move is not None)}


def _scaled(tables: Tables, looks: Sequence[Look]) -> dict[int, float]:
    """Return by image id how much larger an image is than stated where that counts for its boxes too.

    It does unless boxes show that they were drawn on the real images: larger ones than stated have boxes beyond the
    stated sides, smaller ones have none beyond their own.
    """
    factors = {}
    for image, look in zip(tables.images, looks, strict=True):
        if look.width and image.width and image.height and not is_turned(image, look):
            factor = look.width / image.width
            if abs(factor - 1) > _SAME_SIZE and abs(look.height - factor * image.height) <= 1:
                factors[image.id] = factor
    larger_has_them: set[bool] = set()  # boxes that only the larger size can hold; True: that is the real one
    for (x, y, width, height), position in zip(tables.boxes_xywh, tables.image, strict=True):
        image, look = tables.images[position], looks[position]
        if image.id in factors:
            smaller = min((image.width, image.height), (look.width, look.height))
            if x + width > smaller[0] + MARGIN_PX or y + height > smaller[1] + MARGIN_PX:
                larger_has_them.add(factors[image.id] > 1)
    return {
        image_id: factor for image_id, factor in factors.items() if (factor > 1) != ((factor > 1) in larger_has_them)
    }


def _fit_upright_alone(tables: Tables, looks: Sequence[Look], turned: Mapping[int, int]) -> bool:
    """Return whether some box fits only the turned image, so that all were drawn on images as they are seen."""
    for (x, y, width, height), position in zip(tables.boxes_xywh, tables.image, strict=True):
        image, look = tables.images[position], looks[position]
        if image.id in turned:
            beyond = x + width > image.width + MARGIN_PX or y + height > image.height + MARGIN_PX
            if beyond and x + width <= look.width + MARGIN_PX and y + height <= look.height + MARGIN_PX:
                return True
    return False


def _from_corners(box: Box, image: Entry) -> Box:
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def _from_fractions(box: Box, image: Entry) -> Box:
    x, y, width, height = box
    return x * image["width"], y * image["height"], width * image["width"], height * image["height"]


def _scaling(factor: float) -> Callable[[Box, Entry], Box]:
    def scale(box: Box, image: Entry) -> Box:
        x, y, w, h = box
        return x * factor, y * factor, w * factor, h * factor

    return scale


def _turning(orientation: int) -> Callable[[Box, Entry], Box]:
    """Return the function that takes a box of the stored image to the one that EXIF's orientation, 5 to 8, shows."""

    def turn(box: Box, image: Entry) -> Box:
        x, y, w, h = box
        stored_width, stored_height = image["height"], image["width"]
        left = stored_height - y - h if orientation in (6, 7) else y
        top = stored_width - x - w if orientation in (7, 8) else x
        return left, top, h, w

    return turn


def _clip(box: Box, width: int, height: int) -> Box:
    x, y, w, h = box
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + w, width) - left, min(y + h, height) - top


def _area(stated: float | None, box: Box, *, converted: bool) -> float:
    """Return the area of a changed box: that of a mask stays while it can be true."""
    whole = box[2] * box[3]
    return whole if converted or stated is None else min(float(stated), whole)
