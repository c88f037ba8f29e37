"""CreateML: a JSON list of images, boxes by their middle and size in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, from_xywh

_NAMES = ("image", "imagefilename", "filename")
_LISTS = ("annotations", "annotation")


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    for entry in content:
        name = next(entry[key] for key in _NAMES if key in entry)
        yield RawImage(name, None, next(entry[key] for key in _LISTS if key in entry), _object)


def _object(entry: Any) -> list[Named]:
    box = entry["coordinates"]
    x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
    return [Named(entry["label"], from_xywh(x - width / 2, y - height / 2, width, height))]


def _fits(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(entry.get(name), str) and isinstance(entry.get(key), list)
        for entry in content for name in _NAMES for key in _LISTS
    )  # fmt: skip


CREATEML = json_layout("createml", "CreateML", ("*.json with a list of image and annotations",), Tool(_fits, _images))
