"""Datumaro: `annotations/SPLIT.json` with items and categories, images in `images/` or `images/SPLIT/`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, bounds, from_xywh, size_of

_WITHOUT_BOX = ("label", "caption", "points", "skeleton", "cuboid_3d", "hash_key")


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    names = [label["name"] for label in content["categories"]["label"]["labels"]]
    for item in content["items"]:
        image = item.get("image") or item.get("media") or {}
        size = size_of(*image["size"]) if image.get("size") else None
        name = image.get("path") or f"{item['id']}.jpg"
        yield RawImage(name, size, item["annotations"], partial(_object, names), item["id"].rpartition("/")[2])


def _object(names: list[str], entry: Any) -> list[Named]:
    kind = entry["type"]
    if kind in _WITHOUT_BOX:
        return []
    if kind in ("bbox", "ellipse"):
        box = from_xywh(*entry["bbox"]) if kind == "bbox" else bounds(entry["points"])
    elif kind == "rotated_bbox":
        box = _rotated(*map(float, entry["rbbox"]))
    elif kind == "mask":
        box = from_xywh(*masks.toBbox({"counts": entry["rle"]["counts"], "size": entry["rle"]["size"]}))
    else:
        box = bounds(entry["points"])
    return [Named(names[entry["label_id"]], box, bool(entry.get("attributes", {}).get("is_crowd")))]


def _rotated(x: float, y: float, width: float, height: float, degrees: float) -> tuple[float, float, float, float]:
    """Return the box around one that is turned about its middle."""
    angle = np.deg2rad(degrees)
    cosine, sine = abs(np.cos(angle)), abs(np.sin(angle))
    w, h = width * cosine + height * sine, width * sine + height * cosine
    return from_xywh(x - w / 2, y - h / 2, w, h)


DATUMARO = json_layout(
    "datumaro", "Datumaro", ("annotations/*.json with items and categories",),
    Tool(lambda content: {"items", "categories"} <= content.keys(), _images),
)  # fmt: skip
