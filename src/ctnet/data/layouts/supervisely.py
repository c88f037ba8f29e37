"""Supervisely: a project of data sets, each with `ann/IMAGE.json` and `img/IMAGE`."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctnet.data.image_header import read_header
from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, bounds, from_xywh, size_of

_HEAD = 4096  # bytes of a mask's PNG that are unpacked: its size is all that is needed


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    place = file.parent.parent / "img" if file.parent.name == "ann" else file.parent
    size = size_of(content["size"]["height"], content["size"]["width"])
    yield RawImage(f"{place}/{file.name.removesuffix('.json')}", size, content["objects"], _object)


def _object(entry: Any) -> list[Named]:
    name, kind = entry["classTitle"], entry["geometryType"]
    if kind in ("point", "graph"):
        return []
    if kind != "bitmap":
        points = entry["points"]
        return [Named(name, bounds(points["exterior"] if isinstance(points, dict) else points))]
    packed = base64.b64decode(entry["bitmap"]["data"])
    header = read_header(zlib.decompressobj().decompress(packed, _HEAD))
    if header is None:
        raise ValueError("a mask that is a PNG")
    x, y = entry["bitmap"]["origin"]
    return [Named(name, from_xywh(x, y, header.width, header.height))]


SUPERVISELY = json_layout(
    "supervisely", "Supervisely", ("*/ann/*.json with objects and size",),
    Tool(lambda content: {"objects", "size"} <= content.keys(), _images, one_an_image=True),
)  # fmt: skip
