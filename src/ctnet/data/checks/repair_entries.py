"""COCO entries in the form that they should have: numbers for text, names for numbers, boxes for masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import numpy as np

from ctnet.data.box_form import rotated_bounds
from ctnet.data.layouts.coco import Box, is_file_name, is_integer, read_box, read_crowd
from ctnet.data.layouts.layout import CocoContent

Entry = dict[str, Any]
Key = int | str

_FILE_NAMES = ("file_name", "filename", "path", "file", "name", "image", "coco_url")
_LARGEST_MASK = 1 << 31  # pixels


def plain_content(content: CocoContent, done: Counter[str]) -> CocoContent:
    """Return the content with every value that can be converted in the form that COCO describes.

    Ids become integers, and new ones where they are other text; every box is four numbers where a mask, corners or a
    rotated box says where it is. Entries that are no objects are left out. `done` counts what was done.
    """
    entries = {name: [dict(e) for e in content[name] if isinstance(e, dict)] for name in _LISTS}
    for kind, kept in entries.items():
        done[f"entries of {kind} dropped"] += len(content[kind]) - len(kept)
    images, categories, annotations = entries.values()
    image_ids, category_ids = _ids(images, "image", done), _ids(categories, "category", done)
    for entry in images:
        _plain_image(entry, done)
    for position, entry in enumerate(categories):
        name = entry.get("name")
        if not isinstance(name, str):
            numbered = isinstance(name, int | float) and not isinstance(name, bool)
            entry["name"] = f"{name:g}" if numbered else f"class {entry.get('id', position)}"
            done["names of categories made text"] += 1
    for entry in annotations:
        for field, ids in (("image_id", image_ids), ("category_id", category_ids)):
            known = ids.get(_key(entry.get(field)))
            if known is not None and not is_integer(entry[field]):
                done[f"values of {field} made numbers"] += 1
            entry[field] = entry.get(field) if known is None else known
        _plain_annotation(entry, done)
    _one_category_a_name(categories, annotations, done)
    if annotations and all(entry.get("iscrowd") for entry in annotations):
        for entry in annotations:  # tools that write masks as runs mark all of them, objects too
            entry["iscrowd"] = 0
        done["crowd regions made objects, since every box was one"] += len(annotations)
    return {**content, "images": images, "categories": categories, "annotations": annotations}


_LISTS = ("images", "categories", "annotations")


_LARGEST = 2**53  # integers from here on are not exact in floating point; false for NaN and infinity


def number(value: object) -> int | float | None:
    """Return the finite number that a value is or spells, an integer where it has no fraction; None for another."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().lstrip("+-").isdecimal() else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _key(value: object) -> Key | None:
    """Return what an id is compared by: "1", 1.0 and 1 are the same."""
    plain = number(value)
    return plain if is_integer(plain) else value if isinstance(value, str) and value else None


def _ids(entries: Iterable[Entry], what: str, done: Counter[str]) -> dict[Key | None, int]:
    """Give every entry an integer as id, a new one where it is other text, and return them by their keys."""
    entries = list(entries)
    keys = [_key(entry.get("id")) for entry in entries]
    free = count(max((key for key in keys if isinstance(key, int)), default=0) + 1)
    ids: dict[Key | None, int] = {}
    for entry, key in zip(entries, keys, strict=True):
        new = ids[key] if key in ids else key if isinstance(key, int) else next(free)
        if key is not None:
            ids[key] = new
        if not is_integer(entry.get("id")):
            done[f"{what} ids made numbers"] += 1
        entry["id"] = new
    return ids


def _plain_image(entry: Entry, done: Counter[str]) -> None:
    if not is_file_name(entry.get("file_name")):
        name = next((entry[field] for field in _FILE_NAMES if is_file_name(entry.get(field))), None)
        if name is not None:
            entry["file_name"] = name
            done["file names taken from another field"] += 1
    for side in ("width", "height"):
        value = number(entry.get(side))
        if value is not entry.get(side) and is_integer(value):
            entry[side] = value
            done["sides of images made whole numbers"] += 1


def _plain_annotation(entry: Entry, done: Counter[str]) -> None:
    box = entry.get("bbox")
    if read_box(box) is None:
        found = _box_of_numbers(box) or _box_of_mask(entry.get("segmentation"))
        if found:
            what, entry["bbox"] = found[0], list(found[1])
            done[what] += 1
    for field in ("id", "area"):
        value = number(entry.get(field))
        if value is not None and (isinstance(entry[field], str) or (field == "id" and type(entry[field]) is float)):
            entry[field] = value
            done[f"values of {field} made numbers"] += 1
    area, box = number(entry.get("area")), read_box(entry.get("bbox"))
    if area is not None and area <= 0 and box and min(box[2:]) > 0:
        del entry["area"]
        done["areas of 0 computed anew"] += 1
    crowd = entry.get("iscrowd")
    if "iscrowd" in entry and type(crowd) is not int:
        entry["iscrowd"] = int(bool(read_crowd(crowd)) or (isinstance(crowd, str) and crowd.casefold() == "true"))
        done["values of iscrowd made numbers"] += 1


def _box_of_numbers(value: object) -> tuple[str, Box] | None:
    """Return the box that numbers describe, and words for what was converted.

    Four are x, y, width, height; five are those of a rotated box, centre, width, height and degrees; eight its corners.
    """
    if not isinstance(value, list | tuple) or len(value) not in (4, 5, 8):
        return None
    numbers = [number(v) for v in value]
    if None in numbers:
        return None
    values = np.array(numbers, np.float64)
    if len(values) == 4:
        return "boxes made numbers", tuple(numbers)  # type: ignore[return-value]
    if len(values) == 8:
        return "rotated boxes replaced by their bounds", _bounds(values)
    x, y, width, height, degrees = values.tolist()
    return "rotated boxes replaced by their bounds", rotated_bounds(x, y, width, height, math.radians(degrees))


def _bounds(points: Any) -> Box:
    """Return x, y, width, height of the bounds of points x1, y1, x2, y2, ..."""
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    (left, top), (right, bottom) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
    return left, top, right - left, bottom - top


def _box_of_mask(value: object) -> tuple[str, Box] | None:
    """Return the bounds of polygons or of a mask in runs, and words for what was converted."""
    if isinstance(value, Mapping):
        box = _box_of_runs(value)
        return ("boxes made of masks", box) if box else None
    if not isinstance(value, list) or not value:
        return None
    parts = value if isinstance(value[0], list) else [value]
    flat = [number(v) for part in parts if isinstance(part, list) and len(part) % 2 == 0 for v in part]
    if not flat or None in flat:
        return None
    return "boxes made of polygons", _bounds(flat)


def _box_of_runs(mask: Mapping[str, Any]) -> Box | None:
    """Return the bounds of a mask in runs of zeros and ones in turn, column by column, as a list or as COCO's text."""
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(is_integer(side) and side > 0 for side in size):
        return None
    try:
        runs = np.array(_counts(counts) if isinstance(counts, str) else counts, np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    height, width = size
    if height * width > _LARGEST_MASK or runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        return None
    ends = np.cumsum(runs)
    first, last = ends[:-1:2], ends[1::2] - 1
    first, last = first[last >= first], last[last >= first]
    if not len(last):
        return None
    whole = first // height != last // height  # a run over several columns reaches from edge to edge
    top = int(np.where(whole, 0, first % height).min())
    bottom = int(np.where(whole, height - 1, last % height).max())
    left, right = int(first[0] // height), int(last[-1] // height)
    return left, top, right - left + 1, bottom - top + 1


def _counts(text: str) -> list[int]:
    """Return the runs that COCO's text spells: five bits a letter, from the third on the difference to the one before.

    Source: `rleFrString` of COCO's mask API. Raises ValueError for other text.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{letter!r} is no letter of a mask")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _one_category_a_name(categories: list[Entry], annotations: list[Entry], done: Counter[str]) -> None:
    """Leave one category of each name; annotations of the others become its own."""
    first: dict[str, int] = {}
    moved: dict[int, int] = {}
    for entry in list(categories):
        name, category_id = entry["name"], entry["id"]
        if first.setdefault(name, category_id) != category_id:
            moved[category_id] = first[name]
            categories.remove(entry)
            done["categories of one name merged"] += 1
    for entry in annotations:
        if is_integer(entry["category_id"]):
            entry["category_id"] = moved.get(entry["category_id"], entry["category_id"])
