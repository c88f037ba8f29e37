"""Label Studio's own JSON: a list of tasks with results in percent; its COCO, YOLO and VOC exports are others'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, bounds, size_of

_WITHOUT_BOX = ("keypointlabels", "choices", "textarea", "rating", "labels", "number", "relation", "taxonomy")


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    for task in content:
        data = task["data"]
        address = data["image"] if isinstance(data.get("image"), str) else next(v for v in data.values() if _is_name(v))
        done = [entry for entry in task["annotations"] if not entry.get("was_cancelled")]
        results = done[0]["result"] if done else []
        sizes = (size_of(r.get("original_height"), r.get("original_width")) for r in results)
        name = address.rpartition("?d=")[2] or address
        yield RawImage(name, next((size for size in sizes if size), None), results, _object)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and "." in value.rpartition("/")[2]


def _object(result: Any) -> list[Named]:
    kind, value = result["type"], result.get("value", {})
    if kind in _WITHOUT_BOX:
        return []
    name = value[kind][0]
    width, height = float(result["original_width"]), float(result["original_height"])
    if "points" in value:
        points = np.array(value["points"], float)
    elif "radiusX" in value:
        middle, reach = np.array([value["x"], value["y"]]), np.array([value["radiusX"], value["radiusY"]])
        points = np.stack([middle - reach, middle + reach])
    else:  # turned about the first corner, in pixels
        x, y, w, h = (float(value[key]) for key in ("x", "y", "width", "height"))
        turn = np.deg2rad(float(value.get("rotation") or 0))
        across = np.array([np.cos(turn), np.sin(turn)]) * w * width / 100
        down = np.array([-np.sin(turn), np.cos(turn)]) * h * height / 100
        corner = np.array([x * width, y * height]) / 100
        return [Named(name, bounds([corner, corner + across, corner + down, corner + across + down]))]
    return [Named(name, bounds(points * [width / 100, height / 100]))]


def _fits(content: Any) -> bool:
    return isinstance(content, list) and {"data", "annotations"} <= content[0].keys()


LABEL_STUDIO = json_layout(
    "labelstudio", "Label Studio", ("*.json with a list of data and annotations",), Tool(_fits, _images)
)
