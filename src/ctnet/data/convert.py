"""Any layout that ctnet reads, written as a COCO folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ctnet.data.coco import write_coco
from ctnet.data.dataset import read_split
from ctnet.data.layout import find_splits
from ctnet.errors import ConfigError, DataError, StorageError
from ctnet.files import is_file
from ctnet.types import AnnotationSet, ImageRecord

Source = Literal["auto", "voc", "yolo", "xyxy"]


def convert(
    path: str | Path,
    out: Path,
    source: Source = "auto",
    *,
    link: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, AnnotationSet]:
    """Write every split at `path` to `out/annotations/instances_{split}.json` and return them by name.

    Pictures are copied to `out/images/{split}/`; with `link` they are hard links, or symbolic ones across
    disks. `source="xyxy"` takes the boxes of a COCO json for corners. `progress` is called with pictures done
    and in all. Raises ConfigError when `out` holds something, DataError when the data is of another kind or a
    picture is missing, StorageError.
    """
    path = Path(path).expanduser()
    require_new_folder(out)
    splits = find_splits(path)
    wanted = {"voc": "voc", "yolo": "yolo", "xyxy": "coco"}.get(source)
    layouts = {files.layout for files in splits.values()}
    if wanted and layouts != {wanted}:
        raise DataError(f"the data is not {wanted}", got=f"{path}: {', '.join(sorted(layouts))}", expected=wanted)
    sets = {split: read_split(files, split) for split, files in splits.items()}
    if source == "xyxy":
        sets = {split: _from_corners(annotation_set) for split, annotation_set in sets.items()}
    pictures = [image.path for annotation_set in sets.values() for image in annotation_set.images]
    missing = next((picture for picture in pictures if not is_file(picture)), None)
    if missing:
        raise DataError("a picture is missing", file=missing, hint="ctnet data check lists them all")
    done = 0
    for split, annotation_set in sets.items():
        images = _renamed(annotation_set.images, out / "images" / split)
        for old, new in zip(annotation_set.images, images, strict=True):
            _place(old.path, new.path, link)
            done += 1
            if progress:
                progress(done, len(pictures))
        json_file = out / "annotations" / f"instances_{split}.json"
        sets[split] = replace(annotation_set, source=json_file, images=images)
        write_coco(sets[split], json_file)
    return sets


def _renamed(images: tuple[ImageRecord, ...], folder: Path) -> tuple[ImageRecord, ...]:
    """Return the records with their pictures in one folder; an equal name gets its image id in front.

    Names that differ by case alone are equal, as some file systems take them.
    """
    taken: set[str] = set()
    records = []
    for record in images:
        name = record.path.name
        while name.casefold() in taken:
            name = f"{record.id}_{name}"
        taken.add(name.casefold())
        records.append(replace(record, path=folder / name))
    return tuple(records)


def _from_corners(annotation_set: AnnotationSet) -> AnnotationSet:
    """Return the boxes as they are meant: what was read as width and height is the second corner."""
    images = []
    for record in annotation_set.images:
        first = record.boxes_xyxy[:, :2]
        second = record.boxes_xyxy[:, 2:] - first
        areas = np.prod(second - first, axis=1, dtype=np.float32)
        images.append(replace(record, boxes_xyxy=np.concatenate([first, second], axis=1), areas=areas))
    return replace(annotation_set, images=tuple(images))


def _place(picture: Path, target: Path, link: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            shutil.copyfile(picture, target)
            return
        try:
            os.link(picture.resolve(), target)
        except OSError:  # another disk, or one without hard links
            target.symlink_to(picture.resolve())
    except OSError as error:
        raise StorageError("cannot place the picture", file=target, got=error.strerror) from None


def require_new_folder(folder: Path) -> None:
    """Raise ConfigError when the folder already holds something: nobody's files are overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("the output folder is not empty", got=folder, hint="name a new one, or empty it")
