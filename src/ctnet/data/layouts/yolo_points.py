"""Key points of YOLO sets: what data.yaml says about them, and their numbers in a line of labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctnet.data.layouts.coco import is_integer
from ctnet.data.layouts.keypoints import pairs_of, read_category, unnamed_schema
from ctnet.errors import DataError
from ctnet.types import Float32, KeypointSchema

_MOST_POINTS = 1000
_REACH = 1.0  # of labelled points beyond the image; what is farther is in pixels


class YoloPoints(NamedTuple):
    """The key points of a line: what they are, and how many numbers each has, 2 or 3."""

    schema: KeypointSchema
    numbers: int

    @property
    def columns(self) -> int:
        """The numbers of a line behind the box."""
        return self.numbers * len(self.schema.names)

    def read(self, values: list[float]) -> Float32 | None:
        """Return the points (P,3) as fractions of the image, None for numbers that cannot be points."""
        rows = np.array(values, np.float32).reshape(-1, self.numbers)
        if self.numbers == 2:  # a point that is not labelled lies in the corner, or before it
            rows = np.column_stack([rows, np.where((rows == 0).all(1) | (rows < 0).any(1), 0, 2)])
        seen = rows[rows[:, 2] > 0, :2]
        sound = np.isfinite(rows).all() and (seen >= -_REACH).all() and (seen <= 1 + _REACH).all()
        return rows.astype(np.float32) if sound else None


def read_shape(data_yaml: Path, content: Mapping[str, Any]) -> YoloPoints | None:
    """Return the key points that `kpt_shape`, `flip_idx` and `kpt_names` describe, None without any.

    `skeleton`, which counts from 0, and `sigmas` are ctnet's own. Raises DataError.
    """
    shape, mirrored = content.get("kpt_shape"), content.get("flip_idx")
    if shape is None:
        return None
    try:
        if not (
            isinstance(shape, list) and len(shape) == 2 and all(map(is_integer, shape))
            and 0 < shape[0] <= _MOST_POINTS and shape[1] in (2, 3)
        ):  # fmt: skip
            raise ValueError(f"kpt_shape: [number of points, 2 or 3], got {shape!r:.80}")
        if mirrored is not None and not (
            isinstance(mirrored, list) and len(mirrored) == shape[0] and all(map(is_integer, mirrored))
        ):
            raise ValueError(f"flip_idx: {shape[0]} indices, one for each point of kpt_shape, got {mirrored!r:.80}")
        pairs = None if mirrored is None else pairs_of(mirrored)
        schema = _named_schema(content, shape[0], mirrored)
    except ValueError as error:
        raise DataError("the key points are malformed", file=data_yaml, expected=error) from None
    return YoloPoints(schema if pairs is None else replace(schema, flip_pairs=pairs), shape[1])


def _named_schema(content: Mapping[str, Any], count: int, mirrored: list[int] | None) -> KeypointSchema:
    names = content.get("kpt_names")
    lists = list(names.values()) if isinstance(names, dict) else [names]
    if names is None:
        classes = content.get("names")
        only = [*(classes.values() if isinstance(classes, dict) else classes or [])] if classes else []
        return unnamed_schema(count, str(only[0]) if len(only) == 1 else "", mirrored)
    if any(one != lists[0] for one in lists):
        raise ValueError("kpt_names: the same names for every class")
    edges = content.get("skeleton") or []
    if isinstance(edges, list):  # counts from 0
        edges = [[end + 1 if is_integer(end) else end for end in e] if isinstance(e, list) else e for e in edges]
    schema = read_category({"keypoints": lists[0], "sigmas": content.get("sigmas"), "skeleton": edges})
    if schema is None or len(schema.names) != count:
        raise ValueError(f"kpt_names: {count} names, one for each point of kpt_shape")
    return schema


def describe(schema: KeypointSchema | None, names: Mapping[int, str]) -> list[str]:
    """Return the lines of a data.yaml about key points, as `read_shape` reads them."""
    if schema is None:
        return []
    sigmas = [] if schema.sigmas is None else [f"sigmas: {list(schema.sigmas)}"]
    return [
        f"kpt_shape: [{len(schema.names)}, 3]",
        f"flip_idx: {schema.mirrored()}",
        "kpt_names:", *(f"  {label}: {json.dumps(schema.names)}" for label in names),
        f"skeleton: {json.dumps(schema.skeleton)}", *sigmas,
    ]  # fmt: skip
