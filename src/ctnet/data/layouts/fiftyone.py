"""FiftyOne's own layouts: `labels.json` by image beside `data/`, and `samples.json`; COCO, YOLO and VOC are others'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctnet.data.layouts.json_set import RawImage, Tool, json_layout
from ctnet.data.layouts.labelled import Named, from_xywh


def _images(file: Path, content: Any) -> Iterator[RawImage]:
    if "samples" in content:
        for sample in content["samples"]:
            fields = (value for value in sample.values() if isinstance(value, dict) and "detections" in value)
            yield RawImage(sample["filepath"], None, next(fields, {"detections": []})["detections"], _object)
        return
    classes = content.get("classes") or []
    for stem, objects in content["labels"].items():
        named = [{**entry, "label": _name(entry["label"], classes)} for entry in objects or []]
        yield RawImage(stem, None, named, _object, stem.rpartition("/")[2])


def _name(label: Any, classes: list[str]) -> Any:
    return classes[label] if isinstance(label, int) else label


def _object(entry: Any) -> list[Named]:
    return [Named(entry["label"], from_xywh(*entry["bounding_box"]), fractions=True)]


def _fits(content: Any) -> bool:
    if isinstance(content.get("samples"), list):
        return "filepath" in content["samples"][0]
    labels = content.get("labels")
    return (
        "classes" in content and isinstance(labels, dict) and all(isinstance(v, list | None) for v in labels.values())
    )


FIFTYONE = json_layout(
    "fiftyone", "FiftyOne", ("labels.json with classes and labels", "samples.json"), Tool(_fits, _images)
)
