"""Mechanical repairs of a data set: errors that can be corrected without looking at the content of images."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctnet.data.checks.entries import ImageEntry, Tables, tabulate
from ctnet.data.checks.images import FORBIDDEN, Look, decode_images
from ctnet.data.checks.repair_boxes import Entry, Frames, frames, is_turned, repaired_box
from ctnet.data.checks.repair_entries import plain_content
from ctnet.data.convert import place_images, require_new_folder
from ctnet.data.layouts.coco import coco_dict, json_image_folders, parse_coco, write_coco_json
from ctnet.data.layouts.layout import CocoContent, Repairable, Split, Tolerate
from ctnet.data.layouts.names import ImageFinder
from ctnet.data.layouts.table import LAYOUTS, find_splits
from ctnet.errors import ConfigError, DataError
from ctnet.files import temporary_beside, writing
from ctnet.types import Progress


class Part(NamedTuple):
    """One split: its content with plain values, the tables and looks of its images."""

    split: Split
    content: CocoContent
    tables: Tables
    looks: Sequence[Look]


def fix(path: str | Path, out: Path | None, progress: Progress | None = None) -> list[str]:
    """Write a repaired copy of a data set to `out`, and return, as sentences, what was done.

    A name that ends in .json gets the one COCO file at `path`, whose images stay where they are. Any other is a new
    folder for all splits, in the same layout, with links to the images. None repairs in place and keeps what was
    there beside it.

    Values are converted (text to numbers, polygons, masks and rotated boxes to boxes, encodings to UTF-8), sizes
    corrected, and boxes moved with them unless they can only have been drawn on the real images. What cannot be
    converted goes: images that are missing or unreadable, boxes that are no boxes, repeated or of unknown classes.
    Other fields of COCO stay.

    Raises ConfigError when `out` exists, DataError when no image can be read or there are no rights to read one,
    StorageError.
    """
    path = Path(path).expanduser()
    splits = [*find_splits(path).values()]
    if out is not None and out.suffix.lower() == ".json":
        _require_one(splits, path, out)
    elif out is not None:
        require_new_folder(out)
    done: Counter[str] = Counter()
    parts = [part._replace(content=_repaired(part, done)) for part in _looked_at([*_parts(splits, done)], progress)]
    notes: list[str] = []
    if out is not None and out.suffix.lower() == ".json":
        _write_json(parts[0], out)
    elif out is not None:
        _write_folder(parts, out)
    elif splits[0].layout.name == "coco":
        notes = [_replace_json(part) for part in parts]
    else:
        notes = [_replace_folder(parts, path if path.is_dir() else path.parent)]
    return [*(f"{count} {what}" for what, count in done.items() if count), *notes]


def _require_one(splits: Sequence[Split], path: Path, out: Path) -> None:
    if splits[0].layout.name != "coco" or len(splits) != 1:
        choice = ", ".join(str(split.files.file) for split in splits)
        raise ConfigError(
            "one file at a time can be repaired into a .json", got=f"{path}: {splits[0].layout.title}, {choice}",
            expected="one COCO .json, or a new folder for the whole set",
        )  # fmt: skip
    if out.exists():
        raise ConfigError("the repaired copy must be a new file", got=out)


def _parts(splits: Sequence[Split], done: Counter[str]) -> Iterator[Part]:
    seen: set[str] = set()  # Pascal VOC reads the same files for every split

    def tolerate(error: DataError) -> None:
        if str(error) not in seen:
            seen.add(str(error))
            done[error.done if isinstance(error, Repairable) else "places left out that cannot be understood"] += 1

    for split in splits:
        content, folders = _content(split, tolerate)
        content = plain_content(content, done)
        yield Part(split, content, tabulate(content, split.files.file, folders, split.name)[0], ())


def _content(split: Split, tolerate: Tolerate) -> tuple[CocoContent, tuple[Path, ...]]:
    if split.layout.content:
        return split.layout.content(split.files, tolerate), split.files.image_folders
    return coco_dict(split.read(tolerate)), (Path(),)


def _looked_at(parts: Sequence[Part], progress: Progress | None) -> list[Part]:
    images = [image for part in parts for image in part.tables.images]
    found = decode_images([image.path for image in images], progress)
    if not any(look.width for look in found):
        raise DataError(
            f"none of {len(images)} images can be read",
            file=parts[0].tables.file,
            first=images[0].path if images else None,
            hint="name their folder in a YAML: train: {annotations: FILE.json, images: FOLDER}",
        )
    for image, look in zip(images, found, strict=True):
        if look.code == FORBIDDEN:
            raise DataError("no rights to read an image", file=image.path)
    looks = iter(found)
    return [part._replace(looks=[next(looks) for _ in part.tables.images]) for part in parts]


def _repaired(part: Part, done: Counter[str]) -> CocoContent:
    content, tables, looks = part.content, part.tables, part.looks
    moves = frames(tables, looks)
    by_id = {image.id: (image, look) for image, look in zip(tables.images, looks, strict=True)}
    images, same = _repaired_images(content["images"], by_id, moves, done)
    categories = _repaired_categories(content["categories"], done)
    kept: list[Entry] = []
    boxes: set[tuple[Any, ...]] = set()
    for entry in content["annotations"]:
        image = images.get(same.get(entry.get("image_id"), 0)) if _hashable(entry.get("image_id")) else None
        if image is None:
            done["annotations dropped, without an image"] += 1
            continue
        if not _hashable(entry.get("category_id")) or entry["category_id"] not in categories:
            done["annotations dropped, of an unknown category"] += 1
            continue
        annotation = repaired_box(entry, image, moves, done)
        if annotation is None:
            continue
        annotation["image_id"] = image["id"]
        key = (image["id"], annotation["category_id"], *annotation["bbox"])
        if key in boxes:
            done["boxes dropped, there twice"] += 1
            continue
        boxes.add(key)
        kept.append(annotation)
    _number(kept, done)
    return {**content, "images": [*images.values()], "annotations": kept, "categories": [*categories.values()]}


def _hashable(value: object) -> bool:
    return isinstance(value, int)


def _number(annotations: Sequence[Entry], done: Counter[str]) -> None:
    """Give annotations new ids where they have none, or one that is taken."""
    ids = [entry.get("id") for entry in annotations]
    next_id = max((i for i in ids if isinstance(i, int)), default=0) + 1
    used: set[int] = set()
    for entry, annotation_id in zip(annotations, ids, strict=True):
        if type(annotation_id) is not int or annotation_id in used:
            entry["id"] = next_id
            next_id += 1
            done["annotation ids numbered anew"] += 1
        used.add(entry["id"])


def _repaired_images(
    entries: list[Entry], looks: Mapping[int, tuple[ImageEntry, Look]], moves: Frames, done: Counter[str]
) -> tuple[dict[int, Entry], dict[int, int]]:
    """Return the images that stay by id, and for every id that of the image that its boxes belong to."""
    images: dict[int, Entry] = {}
    same: dict[int, int] = {}
    first: dict[tuple[Path, str], int] = {}
    for entry in entries:
        image, look = looks.get(entry["id"], (None, Look()))
        if image is None or entry.get("file_name") != image.name or image.id in images:
            done["entries of images dropped"] += 1
            continue
        if not look.width:
            done["images dropped, missing or unreadable"] += 1
            continue
        same[image.id] = first.setdefault((image.path, image.name), image.id)
        if same[image.id] != image.id:
            done["entries of images merged that are one file"] += 1
            continue
        images[image.id] = dict(entry)
        if image.id in moves.keep and is_turned(image, look):
            done["turned images left as they are: turn the files or their boxes"] += 1
        elif (entry.get("width"), entry.get("height")) != (look.width, look.height):
            done["image sizes corrected"] += 1
            images[image.id] |= {"width": look.width, "height": look.height}
    return images, same


def _repaired_categories(entries: list[Entry], done: Counter[str]) -> dict[int, Entry]:
    categories: dict[int, Entry] = {}
    for entry in entries:
        if entry["id"] in categories:
            done["entries of categories dropped"] += 1
        else:
            categories[entry["id"]] = entry
    return categories


def _paths(part: Part) -> dict[int, Path]:
    return {image.id: image.path.resolve() for image in part.tables.images}


def _write_json(part: Part, out: Path) -> None:
    """Write the file; names of images become relative to it where the images would not be found otherwise."""
    find_image, paths = ImageFinder(json_image_folders(out)), _paths(part)
    images = [dict(image) for image in part.content["images"]]
    for image in images:
        if find_image(image["file_name"]).resolve() != paths[image["id"]]:
            image["file_name"] = Path(os.path.relpath(paths[image["id"]], out.resolve().parent)).as_posix()
    write_coco_json({**part.content, "images": images}, out)


def _write_folder(parts: Sequence[Part], out: Path) -> None:
    """Write all splits in their own layout, COCO where that one is not written, with links to their images."""
    layout = parts[0].split.layout
    writer = layout.writer or LAYOUTS[0].writer
    assert writer is not None
    sets = {}
    for part in parts:
        paths = _paths(part)
        images = [{**image, "file_name": str(paths[image["id"]])} for image in part.content["images"]]
        sets[part.split.name] = parse_coco(
            {**part.content, "images": images}, part.split.files.file, (Path("/"),), part.split.name
        )
    placed = place_images(sets, out, writer, link=True)
    files = writer.write(placed, out)
    if writer is LAYOUTS[0].writer:  # written again with the fields that ctnet does not read
        for part in parts:
            names = {image.id: image.path.name for image in placed[part.split.name].images}
            images = [{**image, "file_name": names[image["id"]]} for image in part.content["images"]]
            write_coco_json({**part.content, "images": images}, files[part.split.name])


def _replace_json(part: Part) -> str:
    file = part.split.files.file
    backup = _backup(file)
    with writing(backup):
        shutil.copy2(file, backup)
    write_coco_json(part.content, file)
    return f"what was in {file.name} is in {backup}"


def _replace_folder(parts: Sequence[Part], folder: Path) -> str:
    folder = folder.resolve()
    if Path.cwd().is_relative_to(folder):
        raise ConfigError("a folder cannot be repaired in place from inside", got=folder, hint="go to another folder")
    backup, new = _backup(folder), temporary_beside(folder)
    try:
        _write_folder(parts, new)
        with writing(folder):
            folder.rename(backup)
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return f"the folder as it was is {backup}"


def _backup(path: Path) -> Path:
    """Return a free name beside a file or folder for what it was."""
    names = (path.with_name(f"{path.name}.before-fix{f'-{n}' if n > 1 else ''}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())
