"""Tolerant reading of COCO content: valid entries become tables, all others findings."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.data.box_form import Float64
from ctnet.data.checks.findings import Finding, found
from ctnet.data.layouts.coco import Box, is_file_name, is_integer, read_area, read_box
from ctnet.data.layouts.keypoints import read_category, read_points, stacked_points, unnamed_schema
from ctnet.data.layouts.names import ImageFinder
from ctnet.types import Float32, Int64, KeypointSchema

Problems = dict[str, list[str]]
Row = tuple[Box, int, int, int, int, Float32 | None]


@dataclass(frozen=True)
class ImageEntry:
    """One entry of images; width and height are 0 when they are not stated as they must be."""

    id: int
    name: str
    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class Tables:
    """The valid entries of one split.

    For each box: `boxes_xywh` (N,4), `image` and `category` its (N,) positions in `images` and
    `category_names`, `annotation_ids` (N,), `crowd` (N,), and `keypoints` (N,P,3) where `schema` says what they are.
    """

    split: str
    file: Path
    images: tuple[ImageEntry, ...]
    category_names: tuple[str, ...]
    boxes_xywh: Float64
    image: Int64
    category: Int64
    annotation_ids: Int64
    crowd: Int64
    schema: KeypointSchema | None = None
    keypoints: Float32 | None = None

    @property
    def sizes_wh(self) -> Float64:
        """(N,2) width and height of each box's image."""
        sizes = np.array([(p.width, p.height) for p in self.images], np.float64).reshape(-1, 2)
        return sizes[self.image]

    def where(self, index: int) -> str:
        """Return the words for a box: its annotation, its image and its numbers."""
        x, y, w, h = (f"{v:g}" for v in self.boxes_xywh[index])
        image = self.images[self.image[index]]
        size = f"{image.width} x {image.height}"
        return f"annotation {self.annotation_ids[index]} in {image.name} ({size}): x={x} y={y} w={w} h={h}"


def tabulate(
    content: Mapping[str, list[Any]], file: Path, image_folders: Sequence[Path], split: str
) -> tuple[Tables, list[Finding]]:
    """Return the valid entries of a COCO ground truth, and findings about the rest."""
    problems: Problems = defaultdict(list)
    categories = _categories(content["categories"], problems)
    images = _images(content["images"], image_folders, problems)
    category_position = {category_id: i for i, category_id in enumerate(sorted(categories))}
    image_position = {image.id: i for i, image in enumerate(images)}
    schema = _schema(content, problems)
    rows: list[Row] = []
    seen: set[int] = set()
    for position, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict) or not is_integer(annotation.get("id", position + 1)):
            problems["entry-malformed"].append(f"annotations[{position}] = {_short(annotation)}")
            continue
        annotation_id = annotation.get("id", position + 1)
        where = f"annotation {annotation_id}"
        if annotation_id in seen:
            problems["annotation-id-repeated"].append(where)
        seen.add(annotation_id)
        image = _lookup(annotation.get("image_id"), image_position)
        category = _lookup(annotation.get("category_id"), category_position)
        box = read_box(annotation.get("bbox"))
        if image is None:
            problems["image-unknown"].append(f"{where}: image_id {_short(annotation.get('image_id'))}")
            continue
        where = f"{where} in {images[image].name}"
        if category is None:
            problems["category-unknown"].append(f"{where}: category_id {_short(annotation.get('category_id'))}")
        if box is None:
            problems["box-malformed"].append(f"{where}: bbox {_short(annotation.get('bbox'))}")
        area = annotation.get("area")
        if area is not None and read_area(area) is None:
            problems["area-malformed"].append(f"{where}: area {_short(area)}")
        points = _points(annotation, schema, where, problems)
        if category is not None and box is not None:
            rows.append((box, image, category, annotation_id, int(annotation.get("iscrowd") == 1), points))
    tables = _tables(split, file, images, [categories[i] for i in sorted(categories)], rows, schema)
    return tables, list(_as_findings(problems, file))


def _as_findings(problems: Problems, file: Path) -> Iterator[Finding]:
    for code, examples in problems.items():
        yield from found(code, file, examples)


def _tables(
    split: str,
    file: Path,
    images: list[ImageEntry],
    category_names: list[str],
    rows: list[Row],
    schema: KeypointSchema | None,
) -> Tables:
    boxes, *columns, points = zip(*rows, strict=True) if rows else ((),) * 6
    image, category, annotation_ids, crowd = (np.array(column, np.int64) for column in columns)
    return Tables(
        split=split,
        file=file,
        images=tuple(images),
        category_names=tuple(category_names),
        boxes_xywh=np.array(boxes, np.float64).reshape(-1, 4),
        image=image,
        category=category,
        annotation_ids=annotation_ids,
        crowd=crowd,
        schema=schema,
        keypoints=stacked_points(points, schema),
    )


def _schema(content: Mapping[str, list[Any]], problems: Problems) -> KeypointSchema | None:
    """Return what key points the categories describe, else how many the first annotation that has some has."""
    found: KeypointSchema | None = None
    for position, entry in enumerate(content["categories"]):
        try:
            schema = read_category(entry) if isinstance(entry, dict) else None
        except ValueError as error:
            problems["keypoints-malformed"].append(f"categories[{position}]: {error}")
            continue
        if found and schema and schema.names != found.names:
            problems["keypoints-count"].append(f"categories[{position}]: other points than the first category's")
        found = found or schema
    stated = (a.get("keypoints") for a in content["annotations"] if isinstance(a, dict))
    first = next((points for value in stated if (points := read_points(value)) is not None and len(points)), None)
    return found or (None if first is None else unnamed_schema(len(first)))


def _points(entry: Mapping[str, Any], schema: KeypointSchema | None, where: str, problems: Problems) -> Float32 | None:
    value = entry.get("keypoints")
    if not value:
        return None
    points = read_points(value)
    if points is None:
        problems["keypoints-malformed"].append(f"{where}: keypoints {_short(value)}")
    elif schema is not None and len(points) != len(schema.names):
        problems["keypoints-count"].append(f"{where}: {len(points)} points instead of {len(schema.names)}")
        return None
    return points


def _categories(entries: list[Any], problems: Problems) -> dict[int, str]:
    categories: dict[int, str] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        category_id, name = fields.get("id"), fields.get("name")
        if not is_integer(category_id) or category_id < 0 or not isinstance(name, str):
            problems["entry-malformed"].append(f"categories[{position}] = {_short(entry)}")
            continue
        if category_id in categories:
            problems["category-repeated"].append(f"id {category_id}: {categories[category_id]} and {name}")
        elif name in names:
            problems["category-repeated"].append(f"name {name}: again with id {category_id}")
        categories.setdefault(category_id, name)
        names.add(name)
    ids = sorted(categories)
    if ids != list(range(1, len(ids) + 1)):
        problems["category-ids-mapped"] = [f"{i} ({categories[i]})" for n, i in enumerate(ids, 1) if i != n]
    return categories


def _images(entries: list[Any], image_folders: Sequence[Path], problems: Problems) -> list[ImageEntry]:
    images: dict[int, ImageEntry] = {}
    names: dict[str, int] = {}
    name_of: dict[Path, str] = {}
    find_image = ImageFinder(image_folders)
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        image_id, name = fields.get("id"), fields.get("file_name")
        if not is_integer(image_id) or not is_file_name(name):
            problems["entry-malformed"].append(f"images[{position}] = {_short(entry)}")
            continue
        if name in names:
            problems["image-file-repeated"].append(f"{name}: images {names[name]} and {image_id}")
        names.setdefault(name, image_id)
        if image_id in images:
            problems["image-id-repeated"].append(f"image {image_id}: {images[image_id].name} and {name}")
            continue
        width, height = (_side(fields.get(side)) for side in ("width", "height"))
        if not (width and height):
            stated = f"width {_short(fields.get('width'))}, height {_short(fields.get('height'))}"
            problems["image-size-differs"].append(f"{name}: {stated}")
        path = find_image(name)
        if name_of.setdefault(path, name) != name:
            problems["image-file-repeated"].append(f"{name_of[path]} and {name}: both are {path}")
        images[image_id] = ImageEntry(image_id, name, path, width, height)
    return list(images.values())


def _side(value: object) -> int:
    return value if is_integer(value) and value > 0 else 0


def _lookup(value: object, positions: Mapping[int, int]) -> int | None:
    return positions.get(value) if is_integer(value) else None


def _short(value: object) -> str:
    if value is None:
        return "absent"
    return reprlib.repr(value)
