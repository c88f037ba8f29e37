"""COCO: one JSON file a split; labels are the positions of the file's categories sorted by id."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import numpy as np

from ctnet.data.box_form import to_xywh
from ctnet.data.layouts.data_yaml import find_data_yaml, read_data_yaml
from ctnet.data.layouts.keypoints import (
    annotation_fields,
    category_fields,
    keypoint_notes,
    labels_with_points,
    read_category,
    read_points,
    stacked_points,
    unnamed_schema,
)
from ctnet.data.layouts.layout import CocoContent, Repairable, SplitFiles, Tolerate, Writer, by_split
from ctnet.data.layouts.names import Folders, ImageFinder
from ctnet.data.layouts.recognise import is_of_datumaro, recognise, recognise_json
from ctnet.data.layouts.text import decode, read_bytes
from ctnet.errors import DataError
from ctnet.files import path_component, write_file
from ctnet.limits import FILE_BYTES, parse_json
from ctnet.types import AnnotationSet, Category, Float32, ImageRecord, KeypointSchema

COCO_LISTS = ("images", "annotations", "categories")
_LARGEST = 1e9
"""coordinates and areas beyond are as wrong as infinity, and float32 could not hold some of them"""


Box = tuple[float, float, float, float]
Row = tuple[Box, int, bool, float, int, Float32 | None]
"""corners, label, whether a crowd, area, annotation id and key points (P,3) of an object"""


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a folder, a JSON file, or a YAML file that names annotations and images of each split."""
    if path.suffix.lower() == ".json" and path.is_file():
        return by_split([(_split_of(path), SplitFiles(path, json_image_folders(path), serves_any=True))])
    return _annotations_folder(path) or _beside_images(path) or _named_in_yaml(path)


def json_image_folders(file: Path) -> tuple[Path, ...]:
    """Return the folders in which the images of a COCO file may lie when nothing else is known of them."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return (*_image_folders(root, _split_of(file)), file.parent)


def read_coco(json_file: Path, image_folders: Sequence[Path], split: str) -> AnnotationSet:
    """Return the annotations of a COCO file, exactly as it states them.

    Boxes without size or outside their image are kept. Images are looked for in `image_folders`, one that is nowhere
    keeps the path it should have. Raises DataError, naming the value, for what cannot be understood.
    """
    return parse_coco(load_coco_json(json_file), json_file, image_folders, split)


def parse_coco(content: CocoContent, json_file: Path, image_folders: Sequence[Path], split: str) -> AnnotationSet:
    """Return the annotations in the content of a COCO file, as `read_coco` does."""
    categories = _read_categories(json_file, content["categories"])
    label_of = {category.id: label for label, category in enumerate(categories)}
    schema = _read_schema(json_file, content, categories)
    by_image: dict[int, list[Row]] = defaultdict(list)
    zero = 0
    for position, annotation in enumerate(content["annotations"]):
        image_id, row = _read_annotation(json_file, position, annotation, label_of, schema)
        by_image[image_id].append(row)
        zero += annotation.get("area") == 0 != row[3]
    images = []
    find_image = ImageFinder(image_folders)
    for position, entry in enumerate(content["images"]):
        image_id = _image_id(json_file, position, entry)
        images.append(_record(json_file, entry, image_id, find_image, by_image.pop(image_id, []), schema))
    _refuse_repeats(json_file, "image id", (image.id for image in images))
    if by_image:
        image_id, rows = next(iter(by_image.items()))
        _refuse(json_file, f"annotation {rows[0][4]}", "an image_id that is in images", image_id)
    notes: tuple[str, ...] = (f"{zero} areas of 0, though the box has one: that is taken",) if zero else ()
    notes += keypoint_notes(schema)
    return AnnotationSet(json_file, split, categories, tuple(images), notes=notes, keypoints=schema)


def read_image_list(json_file: Path, split: str) -> AnnotationSet:
    """Return the images of a COCO file without objects, such as `image_info_*.json` has. See `read_coco`."""
    content = {**load_coco_json(json_file, needed=("images", "categories")), "annotations": []}
    return parse_coco(content, json_file, json_image_folders(json_file), split)


def load_coco_json(
    json_file: Path, tolerate: Tolerate | None = None, needed: Sequence[str] = COCO_LISTS
) -> CocoContent:
    """Return the file's content. Raises DataError unless it is JSON with the three lists of COCO, or those needed.

    `tolerate` gets the error of an encoding other than UTF-8, which the content is then read in.
    """
    raw = read_bytes(json_file, "the annotations", FILE_BYTES)
    try:
        try:
            content = parse_json(raw)
        except UnicodeDecodeError:
            content = parse_json(decode(raw, json_file, "the annotations", tolerate))
    except ValueError as error:
        what, hint = recognise(json_file) or (error, None)
        raise DataError("the annotations are not JSON", file=json_file, got=what, hint=hint) from None
    lists = content if isinstance(content, dict) else {}
    absent = [name for name in needed if not isinstance(lists.get(name), list)]
    if tolerate and absent == ["categories"]:
        numbers = (a.get("category_id") for a in lists["annotations"] if isinstance(a, dict))
        used = dict.fromkeys(number for number in numbers if isinstance(number, int | str))
        lists["categories"], absent = [{"id": number, "name": f"class {number}"} for number in used], []
        tolerate(Repairable("there are no categories", done="lists of categories made of their ids", file=json_file))
    if absent:
        what, hint = recognise_json(content) or (f"no list {', '.join(absent)}", None)
        raise DataError(
            "the file is not COCO",
            file=json_file,
            expected=f"an object with the lists {', '.join(needed[:-1])} and {needed[-1]}",
            got=what,
            hint=hint,
        )
    return lists


def read_box(value: object) -> Box | None:
    """Return the four numbers of a `bbox`, or None when it is anything but four finite numbers."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    # Comparisons with NaN are false, so this refuses NaN and infinity too.
    if not all(type(v) in (int, float) and -_LARGEST < v < _LARGEST for v in value):
        return None
    return value[0], value[1], value[2], value[3]


def read_area(value: object) -> float | None:
    """Return the number of an `area`, or None when it is anything but a finite one."""
    return value if type(value) in (int, float) and -_LARGEST < value < _LARGEST else None  # type: ignore[operator, return-value]


def as_integer(value: object) -> int | None:
    """Return the integer that a value is, 1 for 1.0, or None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def read_crowd(value: object) -> bool | None:
    """Return whether an `iscrowd` marks a crowd region, or None when it is neither 0 nor 1, also as a string."""
    if value is None or value == "0" or value == 0:
        return False
    return True if value == "1" or value == 1 else None


def is_file_name(value: object) -> TypeGuard[str]:
    """Return whether the value can be an image's `file_name`; it may lie anywhere, since it is only read."""
    return isinstance(value, str) and value != "" and "\0" not in value


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether the value can be an id: an integer of 64 bits (JSON's true is none)."""
    return type(value) is int and as_integer(value) is not None


def coco_dict(annotation_set: AnnotationSet) -> dict[str, Any]:
    """Return a COCO ground truth with the original ids, areas and crowds; `bbox` is x, y, width, height.

    Annotation ids are numbered anew, from 1, when one is repeated or 0: pycocotools would score those
    wrongly. `file_name` is the image's path.
    """
    ids = [int(i) for image in annotation_set.images for i in image.annotation_ids]
    if len(set(ids)) < len(ids) or 0 in ids:
        ids = list(range(1, len(ids) + 1))
    next_id = iter(ids)
    images, annotations = [], []
    schema, pointed = annotation_set.keypoints, labels_with_points(annotation_set)
    for image in annotation_set.images:
        images.append({"id": image.id, "file_name": str(image.path), "width": image.width, "height": image.height})
        boxes = to_xywh(image.boxes_xyxy.astype(np.float64)).tolist()
        columns = (image.labels.tolist(), image.crowd.tolist(), image.areas.tolist())
        for i, (box, label, crowd, area) in enumerate(zip(boxes, *columns, strict=True)):
            points = image.keypoints[i] if image.keypoints is not None and label in pointed else None
            annotations.append(
                {
                    "id": next(next_id),
                    "image_id": image.id,
                    "category_id": annotation_set.categories[label].id,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                    **({} if points is None else annotation_fields(points)),
                }
            )
    categories = [
        {"id": category.id, "name": category.name, **(category_fields(schema) if schema and label in pointed else {})}
        for label, category in enumerate(annotation_set.categories)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(annotation_set: AnnotationSet, json_file: Path) -> None:
    """Write the annotations as COCO json, whole or not at all. Raises StorageError.

    File names are relative to the deepest folder that holds all images: bare names when they share one.
    """
    content = coco_dict(annotation_set)
    folders = {str(image.path.parent) for image in annotation_set.images}
    common = os.path.commonpath(folders) if folders else ""
    for image in content["images"]:
        image["file_name"] = Path(image["file_name"]).relative_to(common).as_posix()
    write_coco_json(content, json_file)


def write_coco_json(content: Mapping[str, Any], json_file: Path) -> None:
    """Write a COCO ground truth, whole or not at all. Raises StorageError."""
    # half of a surrogate pair, which JSON may spell and UTF-8 may not hold, is spelt as it was
    write_file(json_file, json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _write_splits(sets: Mapping[str, AnnotationSet], folder: Path) -> dict[str, Path]:
    files = {split: folder / "annotations" / f"instances_{split}.json" for split in sets}
    for split, file in files.items():
        write_coco(sets[split], file)
    return files


WRITER = Writer("images/{split}", _write_splits, keypoints=True)


def _annotations_folder(folder: Path) -> dict[str, SplitFiles]:
    annotations = folder / "annotations"  # of COCO itself it has both kinds: boxes, and persons with key points
    kinds = (sorted(annotations.glob(name)) for name in ("instance*_*.json", "*_keypoints_*.json"))
    plain = [annotations / f"{split}.json" for split in ("test", "train", "val")]
    plain = [file for file in plain if file.is_file() and not is_of_datumaro(file)]
    files = next(filter(None, (*kinds, plain)), [])
    return by_split((_split_of(file), SplitFiles(file, _image_folders(folder, _split_of(file)))) for file in files)


def _split_of(file: Path) -> str:
    return re.sub(r"^(instances?|image_info|.*keypoints)_", "", file.stem)


def _beside_images(folder: Path) -> dict[str, SplitFiles]:
    files = sorted(folder.glob("*/_annotations.coco.json"))
    return by_split((file.parent.name, SplitFiles(file, (file.parent,))) for file in files)


def _named_in_yaml(path: Path) -> dict[str, SplitFiles]:
    file = find_data_yaml(path)
    content = read_data_yaml(file) if file else {}
    if file is None or "names" in content:
        return {}
    splits = {}
    for name, entry in content.items():
        if not isinstance(entry, dict) or set(entry) != {"annotations", "images"}:
            raise DataError(
                f"the split {name!r} is not described",
                file=file,
                expected="{annotations: FILE.json, images: FOLDER}, or names: for a YOLO data set",
                got=entry,
            )
        try:
            split = path_component(str(name))
        except ValueError as error:
            raise DataError("a split cannot have this name", file=file, got=error) from None
        for what, path_name in entry.items():
            if not isinstance(path_name, str):
                raise DataError(
                    f"the {what} of the split {name!r} are not one path", file=file, got=path_name,
                    expected="one file and one folder", hint="a split of several files has to be made one file first",
                )  # fmt: skip
        folder = file.parent / entry["images"]
        splits[split] = SplitFiles(file.parent / entry["annotations"], (folder,))
    return splits


def _image_folders(root: Path, name: str) -> tuple[Path, ...]:
    """Return the folders in which images of a split may lie, the root last.

    `name` may end in a year or go on: the images of val_repaired are those of val.
    """
    brief = re.sub(r"\d{4}$", "", name)
    start = re.match("train|valid|val|test", name)
    guesses = [*dict.fromkeys([name, f"{brief}2017", brief, *([start.group()] if start else [])])]
    in_images = (f"images/{guess}{below}" for guess in guesses for below in ("", "/images"))
    places = [*guesses, *in_images, "images"]
    folders = Folders()
    found = [folders.entry(root, place) for place in places]
    return (*dict.fromkeys(folder for folder in found if folder and folder.is_dir()), root)


def _read_categories(json_file: Path, entries: list[Any]) -> tuple[Category, ...]:
    categories = []
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        category_id, name = as_integer(fields.get("id")), fields.get("name")
        if category_id is None or category_id < 0 or not isinstance(name, str):
            expected = "an integer id from 0 and a name that is text"
            _refuse(json_file, f"categories[{position}]", expected, _values(entry, "id", "name"))
        categories.append(Category(category_id, name))
    _refuse_repeats(json_file, "category id", (category.id for category in categories))
    return tuple(sorted(categories))


def _read_schema(json_file: Path, content: CocoContent, categories: Sequence[Category]) -> KeypointSchema | None:
    """Return the key points that categories describe, else those that annotations have; None without any."""
    found: dict[int, KeypointSchema] = {}
    for entry in content["categories"]:
        try:
            schema = read_category(entry)
        except ValueError as error:
            _refuse(json_file, f"category {entry['id']} ({entry['name']})", str(error), "something else")
        if schema is not None:
            found[entry["id"]] = schema
    first = next(iter(found.values()), None)
    for category_id, schema in found.items():
        if schema.names != first.names:  # type: ignore[union-attr]
            raise DataError(
                "categories have different key points", file=json_file,
                got=f"category {category_id}: {', '.join(schema.names)}",
                expected=f"those of category {next(iter(found))}: {', '.join(first.names)}",  # type: ignore[union-attr]
                hint="keep one kind in a file, or give all categories the same points, some of them never labelled",
            )  # fmt: skip
    if first is not None:
        return first
    for annotation in content["annotations"]:
        points = read_points(annotation.get("keypoints")) if isinstance(annotation, dict) else None
        if points is not None and len(points):
            names = {category.id: category.name for category in categories}
            return unnamed_schema(len(points), names.get(annotation.get("category_id"), ""))
    return None


def _points(
    json_file: Path, where: str, annotation: Mapping[str, Any], schema: KeypointSchema | None
) -> Float32 | None:
    value = annotation.get("keypoints")
    if not value:
        return None
    points = read_points(value)
    if points is None:
        _refuse(json_file, where, "keypoints of three finite numbers a point: x, y, visibility", value)
    if schema is not None and len(points) != len(schema.names):
        _refuse(json_file, where, f"{len(schema.names)} key points, as others have", f"{len(points)} key points")
    return points


def _read_annotation(
    json_file: Path, position: int, annotation: Any, label_of: Mapping[int, int], schema: KeypointSchema | None
) -> tuple[int, Row]:
    """Return the image id and the object."""
    if not isinstance(annotation, dict):
        _refuse(json_file, f"annotations[{position}]", "an object", annotation)
    annotation_id = as_integer(annotation.get("id", position + 1))
    if annotation_id is None:
        _refuse(json_file, f"annotations[{position}]", "an integer id", annotation["id"])
    where = f"annotation {annotation_id}"
    box = read_box(annotation.get("bbox"))
    if box is None:
        _refuse(json_file, where, "a bbox of four finite numbers x, y, width, height", annotation.get("bbox"))
    image_id = as_integer(annotation.get("image_id"))
    if image_id is None:
        _refuse(json_file, where, "an integer image_id", annotation.get("image_id"))
    category_id = as_integer(annotation.get("category_id"))
    if category_id is None or category_id not in label_of:
        _refuse(json_file, where, "a category_id that is in categories", annotation.get("category_id"))
    x, y, width, height = box
    stated = annotation.get("area")
    area = width * height if stated is None else read_area(stated)
    if area is None:
        _refuse(json_file, where, "a finite area", stated)
    if area <= 0 < min(width, height):
        area = width * height  # some tools write 0, with which every object would count as small
    crowd = read_crowd(annotation.get("iscrowd"))
    if crowd is None:
        _refuse(json_file, where, "iscrowd 0 or 1", annotation["iscrowd"])
    corners = (x, y, x + width, y + height)
    points = _points(json_file, where, annotation, schema)
    return image_id, (corners, label_of[category_id], crowd, area, annotation_id, points)


def _image_id(json_file: Path, position: int, entry: Any) -> int:
    image_id = as_integer(entry.get("id")) if isinstance(entry, dict) else None
    if image_id is None:
        _refuse(json_file, f"images[{position}]", "an object with an integer id", _values(entry, "id"))
    return image_id


def _record(
    json_file: Path,
    entry: Mapping[str, Any],
    image_id: int,
    find_image: ImageFinder,
    rows: Sequence[Row],
    schema: KeypointSchema | None,
) -> ImageRecord:
    if not is_file_name(entry.get("file_name")):
        _refuse(json_file, f"image {image_id}", "a file_name", entry.get("file_name"))
    sides = {side: as_integer(entry.get(side)) or 0 for side in ("width", "height")}
    for side, value in sides.items():
        if value <= 0:
            _refuse(json_file, f"image {image_id} ({entry['file_name']})", f"a {side} in pixels", entry.get(side))
    boxes, labels, crowd, areas, annotation_ids, points = zip(*rows, strict=True) if rows else ((),) * 6
    return ImageRecord(
        id=image_id,
        path=find_image(entry["file_name"]),
        width=sides["width"],
        height=sides["height"],
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd, np.bool_),
        areas=np.array(areas, np.float32),
        annotation_ids=np.array(annotation_ids, np.int64),
        keypoints=stacked_points(points, schema),
    )


def _values(entry: object, *names: str) -> object:
    """Return what an entry holds under these names: the value of one, a dictionary of several."""
    if not isinstance(entry, dict):
        return entry
    return entry.get(names[0]) if len(names) == 1 else {name: entry.get(name) for name in names}


def _refuse_repeats(json_file: Path, what: str, values: Iterable[int]) -> None:
    seen: set[int] = set()
    for value in values:
        if value in seen:
            _refuse(json_file, what, "each id once", value)
        seen.add(value)


def _refuse(json_file: Path, where: str, expected: str, got: object) -> NoReturn:
    shown = "nothing" if got is None else reprlib.repr(got) + (", a string" if isinstance(got, str) else "")
    raise DataError(
        f"{json_file.name}: {where} is malformed",
        file=json_file,
        expected=expected,
        got=shown,
        hint="ctnet data check lists every problem, --fix OUT repairs the mechanical ones",
    )
