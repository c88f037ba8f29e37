"""VGG Image Annotator: a JSON file of images and `regions`, versions 1 to 3, alone or as a whole project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, bounds, from_xywh

_CLASS_KEYS = ("class", "label", "name", "type", "category", "object", "classname")
_RECT, _CIRCLE, _ELLIPSE = 2, 3, 4  # shapes of version 3 by number


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    if "metadata" in content and "view" in content:
        yield from _of_version_3(content)
        return
    for entry in content.get("_via_img_metadata", content).values():
        regions = entry["regions"]
        regions = list(regions.values()) if isinstance(regions, Mapping) else regions  # version 1
        yield RawImage(entry["filename"], None, regions, region_objects)


def region_objects(region: Any) -> list[Named]:
    """Return the object of a region, none for a point."""
    shape = region["shape_attributes"]
    kind = shape["name"]
    if kind == "point":
        return []
    return [Named(_class(region["region_attributes"]), _box(kind, shape))]


def _box(kind: str, shape: Any) -> tuple[float, float, float, float]:
    if kind == "rect":
        return from_xywh(shape["x"], shape["y"], shape["width"], shape["height"])
    if kind in ("circle", "ellipse"):
        rx, ry = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
        return from_xywh(shape["cx"] - rx, shape["cy"] - ry, 2 * rx, 2 * ry)
    return bounds(np.stack([shape["all_points_x"], shape["all_points_y"]], 1))


def _class(attributes: Mapping[str, Any]) -> str:
    """Return the class: the attribute called so, or the only one; of a check box, what is ticked."""
    by_name = {key.lower().replace("_", ""): value for key, value in attributes.items()}
    value = next((by_name[key] for key in _CLASS_KEYS if key in by_name), None)
    if value is None:
        (value,) = by_name.values() if by_name else ("object",)
    if isinstance(value, Mapping):
        (value,) = (key for key, ticked in value.items() if ticked)
    return str(value).strip()


def _of_version_3(content: Any) -> Iterator[RawImage]:
    names = {}
    for attribute, about in content.get("attribute", {}).items():
        names[attribute] = about.get("options") or {}
    regions: dict[str, list[Any]] = {view: [] for view in content["view"]}
    for entry in content["metadata"].values():
        regions[str(entry["vid"])].append({**entry, "names": names})
    for view, about in content["view"].items():
        yield RawImage(content["file"][str(about["fid_list"][0])]["fname"], None, regions[view], _object_of_3)


def _object_of_3(entry: Any) -> list[Named]:
    kind, *numbers = entry["xy"]
    if kind < _RECT:
        return []
    attribute, value = next(iter(entry["av"].items()), ("", "object"))
    name = str(entry["names"].get(attribute, {}).get(value, value)).strip()
    if kind == _RECT:
        return [Named(name, from_xywh(*numbers))]
    if kind in (_CIRCLE, _ELLIPSE):
        x, y, rx, ry = (*numbers, numbers[-1])[:4]
        return [Named(name, from_xywh(x - rx, y - ry, 2 * rx, 2 * ry))]
    return [Named(name, bounds(numbers))]


def _fits(content: Any) -> bool:
    if {"metadata", "view", "file"} <= content.keys():
        return True
    entries = content.get("_via_img_metadata", content)
    return bool(entries) and all({"filename", "regions"} <= entry.keys() for entry in entries.values())


VIA = json_layout("via", "VGG Image Annotator", ("*.json with filename and regions",), Tool(_fits, _images))
