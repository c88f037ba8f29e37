"""Mechanical repairs of a COCO json: errors that can be corrected without looking at the content of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctnet.data.box_form import looks_like_corners, looks_normalised
from ctnet.data.checks.entries import ImageEntry, Tables, tabulate
from ctnet.data.checks.images import FORBIDDEN, Look, decode_images
from ctnet.data.layouts.coco import Box, is_integer, json_image_folders, read_area, read_box, write_coco_json
from ctnet.data.layouts.layout import CocoContent, SplitFiles
from ctnet.data.layouts.names import ImageFinder
from ctnet.data.layouts.table import find_splits
from ctnet.errors import ConfigError, DataError
from ctnet.types import Progress

Entry = dict[str, Any]
Looks = dict[int, tuple[ImageEntry, Look]]

_SAME_SIZE = 0.01
"""an image that differs by so little from what is stated is the one that boxes were drawn on"""


def fix(path: str | Path, out: Path, progress: Progress | None = None) -> list[str]:
    """Write a repaired copy of a COCO json to `out` and return, as sentences, what was done.

    Images that are missing or unreadable go, with their boxes; so do boxes that are no boxes or of unknown
    classes. Boxes are clipped, repeated annotation ids numbered anew, corner and normalised boxes converted where most
    look so. Sizes are corrected, and boxes scaled with them unless they can only have been drawn on the real images.
    Turned images are kept: whether their boxes are turned is unknown. Other fields stay; file names become
    relative to `out` where the images would not be found otherwise.

    Raises ConfigError when `path` is not one COCO json or `out` exists, DataError when none of its images can be read
    or there are no rights to read one, StorageError.
    """
    files, content = _only_json(Path(path).expanduser(), out)
    tables, _ = tabulate(content, files.file, files.image_folders, "")
    looks = decode_images([image.path for image in tables.images], progress)
    if not any(look.width for look in looks):
        raise DataError(
            f"none of {len(looks)} images can be read",
            file=files.file,
            first=tables.images[0].path if tables.images else None,
            hint="name their folder in a YAML: train: {annotations: FILE.json, images: FOLDER}",
        )
    for listed, look in zip(tables.images, looks, strict=True):
        if look.code == FORBIDDEN:
            raise DataError("no rights to read an image", file=listed.path)
    looks_by_id = {image.id: (image, look) for image, look in zip(tables.images, looks, strict=True)}
    done: Counter[str] = Counter()
    images = _repaired_images(content["images"], looks_by_id, done)
    categories = _repaired_categories(content["categories"], done)
    to_pixels = _conversion(tables)
    factors = {} if to_pixels else _scaled(tables, looks)
    annotations = []
    ids = {a["id"] for a in content["annotations"] if isinstance(a, dict) and is_integer(a.get("id"))}
    used: set[int] = set()
    next_id = max(ids, default=0) + 1
    for entry in content["annotations"]:
        annotation = _repaired_annotation(entry, images, categories, to_pixels, factors, done)
        if annotation is None:
            continue
        annotation_id = annotation.get("id")
        if not is_integer(annotation_id) or annotation_id in used:
            annotation["id"] = next_id
            next_id += 1
            done["annotation ids numbered anew"] += 1
        used.add(annotation["id"])
        annotations.append(annotation)
    repaired = {"images": [*images.values()], "annotations": annotations, "categories": [*categories.values()]}
    find_image = ImageFinder(json_image_folders(out))
    for image in images.values():
        path = looks_by_id[image["id"]][0].path.resolve()
        if find_image(image["file_name"]).resolve() != path:
            image["file_name"] = Path(os.path.relpath(path, out.resolve().parent)).as_posix()
    write_coco_json({**content, **repaired}, out)
    return [f"{count} {what}" for what, count in done.items() if count]


def _only_json(path: Path, out: Path) -> tuple[SplitFiles, CocoContent]:
    """Return the one split at the path and its content, as it stands."""
    splits = [*find_splits(path).values()]
    read = splits[0].layout.content
    if read is None:
        raise ConfigError(
            "only COCO files can be repaired",
            got=f"{path}: {splits[0].layout.title}",
            hint="ctnet data convert makes COCO files of a data set in another layout",
        )
    if len(splits) != 1:
        choice = ", ".join(str(split.files.file) for split in splits)
        raise ConfigError("one file at a time can be repaired", got=path, expected=f"one of {choice}")
    if out.exists():
        raise ConfigError("the repaired copy must be a new file", got=out)
    return splits[0].files, read(splits[0].files)


def _scaled(tables: Tables, looks: Sequence[Look]) -> dict[int, float]:
    """Return by image id how much larger an image is than stated where that counts for its boxes too.

    It does unless boxes show that they were drawn on the real images: larger ones than stated have boxes beyond the
    stated sides, smaller ones have none beyond their own.
    """
    factors = {}
    for image, look in zip(tables.images, looks, strict=True):
        if look.width and image.width and image.height and not _is_turned(image, look):
            factor = look.width / image.width
            if abs(factor - 1) > _SAME_SIZE and abs(look.height - factor * image.height) <= 1:
                factors[image.id] = factor
    larger_has_them: set[bool] = set()  # boxes that only the larger size can hold; True: that is the real one
    for (x, y, width, height), position in zip(tables.boxes_xywh, tables.image, strict=True):
        image, look = tables.images[position], looks[position]
        if image.id in factors:
            smaller = min((image.width, image.height), (look.width, look.height))
            if x + width > smaller[0] + 1 or y + height > smaller[1] + 1:
                larger_has_them.add(factors[image.id] > 1)
    return {
        image_id: factor for image_id, factor in factors.items() if (factor > 1) != ((factor > 1) in larger_has_them)
    }


def _is_turned(image: ImageEntry, look: Look) -> bool:
    """Return whether the image has the stated sides the other way round."""
    return (image.width, image.height) == (look.height, look.width) != (look.width, look.height)


def _conversion(tables: Tables) -> tuple[str, Callable[[Box, Entry], Box]] | None:
    """Return the form that most boxes are in, if not the right one, and the function that puts one right."""
    boxes, sizes = tables.boxes_xywh, tables.sizes_wh
    if looks_like_corners(boxes, sizes):
        return "boxes converted from xyxy", _from_corners
    if looks_normalised(boxes, sizes):
        return "boxes converted from fractions", _from_fractions
    return None


def _from_corners(box: Box, image: Entry) -> Box:
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def _from_fractions(box: Box, image: Entry) -> Box:
    x, y, width, height = box
    return x * image["width"], y * image["height"], width * image["width"], height * image["height"]


def _repaired_images(entries: list[Any], looks: Looks, done: Counter[str]) -> dict[int, Entry]:
    images: dict[int, Entry] = {}
    for entry in entries:
        image_id = entry.get("id") if isinstance(entry, dict) else None
        image, look = looks.get(image_id, (None, Look())) if is_integer(image_id) else (None, Look())
        if image is None or entry.get("file_name") != image.name:
            done["entries of images dropped"] += 1
        elif not look.width:
            done["images dropped, missing or unreadable"] += 1
        elif image.id in images:
            done["entries of images dropped"] += 1
        elif _is_turned(image, look):
            done["turned images left as they are: turn the files or their boxes"] += 1
            images[image.id] = dict(entry)
        else:
            if (entry.get("width"), entry.get("height")) != (look.width, look.height):
                done["image sizes corrected"] += 1
            images[image.id] = {**entry, "width": look.width, "height": look.height}
    return images


def _repaired_categories(entries: list[Any], done: Counter[str]) -> dict[int, Entry]:
    categories: dict[int, Entry] = {}
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {}
        category_id, name = fields.get("id"), fields.get("name")
        if not is_integer(category_id) or not isinstance(name, str) or category_id in categories:
            done["entries of categories dropped"] += 1
        else:
            categories[category_id] = fields
    return categories


def _repaired_annotation(
    entry: Any,
    images: dict[int, Entry],
    categories: dict[int, Entry],
    conversion: tuple[str, Callable[[Box, Entry], Box]] | None,
    factors: Mapping[int, float],
    done: Counter[str],
) -> Entry | None:
    """Return a repaired copy of an annotation, or None when nothing can be saved."""
    fields = entry if isinstance(entry, dict) else {}
    image_id, category_id = fields.get("image_id"), fields.get("category_id")
    image = images.get(image_id) if is_integer(image_id) else None
    box = read_box(fields.get("bbox"))
    if image is None:
        done["annotations dropped, without an image"] += 1
        return None
    if not is_integer(category_id) or category_id not in categories:
        done["annotations dropped, of an unknown category"] += 1
        return None
    if box is None:
        done["boxes dropped, not four finite numbers"] += 1
        return None
    if conversion:
        what, convert = conversion
        box = convert(box, image)
        done[what] += 1
    factor = factors.get(image["id"], 1.0)
    if factor != 1:
        x, y, w, h = box
        box = x * factor, y * factor, w * factor, h * factor
        done["boxes scaled with their image"] += 1
        done["masks and key points not scaled"] += bool(fields.get("segmentation") or fields.get("keypoints"))
    clipped = _clip(box, image["width"], image["height"])
    if min(clipped[2:]) <= 0:
        done["boxes dropped, without width or height"] += 1
        return None
    if any(abs(new - old) > 1e-6 for new, old in zip(clipped, box, strict=True)):
        done["boxes clipped to their image"] += 1
        box = clipped
    stated = fields.get("area")
    area = read_area(stated)
    if stated is not None and area is None:
        done["areas computed anew"] += 1
    elif list(box) == list(fields["bbox"]):
        return dict(fields)
    return {**fields, "bbox": list(box), "area": _area(area, box, converted=conversion is not None or factor != 1)}


def _clip(box: Box, width: int, height: int) -> Box:
    x, y, w, h = box
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + w, width) - left, min(y + h, height) - top


def _area(stated: float | None, box: Box, *, converted: bool) -> float:
    """Return the area of a changed box: that of a mask stays while it can be true."""
    whole = box[2] * box[3]
    return whole if converted or stated is None else min(float(stated), whole)
