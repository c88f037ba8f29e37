"""Tolerant reading of COCO content: valid entries become tables, all others findings."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctnet.data.box_form import Float64, to_xywh
from ctnet.data.checks.findings import Finding, found
from ctnet.data.layouts.coco import Box, as_integer, is_file_name, read_area, read_box, read_crowd
from ctnet.data.layouts.keypoints import read_category, read_points, stacked_points, unnamed_schema
from ctnet.data.layouts.names import ImageFinder
from ctnet.types import AnnotationSet, Float32, Int64, KeypointSchema

Problems = dict[str, list[str]]
Row = tuple[Box, int, int, int, int, Float32 | None]


class ImageEntry(NamedTuple):
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
    `sought` is as in `AnnotationSet`.
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
    sought: str = ""
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
    content: Mapping[str, list[Any]], file: Path, image_folders: Sequence[Path], split: str, sought: str = ""
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
        annotation_id = as_integer(annotation.get("id", position + 1)) if isinstance(annotation, dict) else None
        if annotation_id is None:
            problems["entry-malformed"].append(f"annotations[{position}]{_about(annotation, 'id')}")
            continue
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
        elif area is not None and area <= 0 and box and min(box[2:]) > 0:
            problems["area-zero"].append(f"{where}: area {area:g}, box {box[2]:g} x {box[3]:g}")
        crowd = read_crowd(annotation.get("iscrowd"))
        if crowd is None:
            problems["crowd-malformed"].append(f"{where}: iscrowd {_short(annotation.get('iscrowd'))}")
        points = _points(annotation, schema, where, problems)
        if category is not None and box is not None:
            rows.append((box, image, category, annotation_id, bool(crowd), points))
    tables = _tables(split, file, images, [categories[i] for i in sorted(categories)], rows, schema, sought)
    return tables, list(_as_findings(problems, file))


def tables_of(annotation_set: AnnotationSet) -> Tables:
    """Return a set that was read without a problem as tables."""
    images = annotation_set.images
    counts = [len(image.labels) for image in images]

    def joined(arrays: Iterable[Any], dtype: type, *shape: int) -> Any:
        return np.concatenate([np.zeros((0, *shape), dtype), *arrays])

    return Tables(
        split=annotation_set.split,
        file=annotation_set.source,
        images=tuple(ImageEntry(i.id, i.path.name, i.path, i.width, i.height) for i in images),
        category_names=tuple(category.name for category in annotation_set.categories),
        boxes_xywh=to_xywh(joined((image.boxes_xyxy for image in images), np.float64, 4)),
        image=np.repeat(np.arange(len(images)), counts),
        category=joined((image.labels for image in images), np.int64),
        annotation_ids=joined((image.annotation_ids for image in images), np.int64),
        crowd=joined((image.crowd for image in images), np.int64),
        sought=annotation_set.sought,
    )


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
    sought: str,
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
        sought=sought,
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
        category_id, name = as_integer(fields.get("id")), fields.get("name")
        if category_id is None or category_id < 0 or not isinstance(name, str):
            problems["entry-malformed"].append(f"categories[{position}]{_about(entry, 'id', 'name')}")
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
    find_image = ImageFinder(image_folders)
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        image_id, name = as_integer(fields.get("id")), fields.get("file_name")
        if image_id is None or not is_file_name(name):
            problems["entry-malformed"].append(f"images[{position}]{_about(entry, 'id', 'file_name')}")
            continue
        if image_id in images:
            problems["image-id-repeated"].append(f"image {image_id}: {images[image_id].name} and {name}")
            continue
        width, height = (_side(fields.get(side)) for side in ("width", "height"))
        if not (width and height):
            stated = f"width {_short(fields.get('width'))}, height {_short(fields.get('height'))}"
            problems["image-size-differs"].append(f"{name}: {stated}")
        images[image_id] = ImageEntry(image_id, name, find_image(name), width, height)
    return list(images.values())


def _side(value: object) -> int:
    return max(as_integer(value) or 0, 0)


def _lookup(value: object, positions: Mapping[int, int]) -> int | None:
    number = as_integer(value)
    return None if number is None else positions.get(number)


def _about(entry: object, *fields: str) -> str:
    """Return the words for what an entry has in its important fields, or for what it is that has no fields."""
    if not isinstance(entry, dict):
        return f" = {_short(entry)}"
    return ": " + ", ".join(f"{name} {_short(entry.get(name))}" for name in fields)


def _short(value: object) -> str:
    if value is None:
        return "absent"
    return reprlib.repr(value) + (", a string" if isinstance(value, str) else "")
