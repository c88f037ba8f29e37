"""LabelMe: a JSON file an image with `shapes`, beside the image or in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, bounds, size_of
from ctnet.data.layouts.names import plain_path


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    size = size_of(content.get("imageHeight"), content.get("imageWidth"))
    name = plain_path(content["imagePath"])
    yield RawImage(f"{file.parent}/{name}", size, content["shapes"], _object, file.stem)


def _object(shape: Any) -> list[Named]:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "point":
        return []
    if kind == "circle":  # its centre, and a point on it
        center, edge = np.array(points, float)
        reach = np.hypot(*(edge - center))
        points = [center - reach, center + reach]
    return [Named(shape["label"], bounds(points))]


LABELME = json_layout(
    "labelme", "LabelMe", ("*.json with shapes and imagePath",),
    Tool(lambda content: {"shapes", "imagePath"} <= content.keys(), _images, one_an_image=True),
)  # fmt: skip
