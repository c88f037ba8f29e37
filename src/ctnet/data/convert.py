"""Convert a data set from any layout to another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctnet.data.box_form import to_xywh
from ctnet.data.image_size import read_image_size
from ctnet.data.layouts.layout import Split, Writer
from ctnet.data.layouts.table import LAYOUTS, SPLITS, find_splits, layout_named
from ctnet.errors import ConfigError, DataError, StorageError, nearest
from ctnet.files import is_file
from ctnet.types import AnnotationSet, Category, ImageRecord, Progress, counted_names

_CORNERS = "xyxy"


def convert(
    path: str | Path,
    out: Path,
    source: str = "auto",
    *,
    to: str = "coco",
    link: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, AnnotationSet]:
    """Write every split at `path` into the folder `out` in the layout `to` and return them by name.

    `source` is the layout that the set must be in; "auto" takes any, "xyxy" takes the boxes of a COCO file for
    corners. Images are copied; with `link` they are hard links, or symbolic ones across disks. Crowd regions exist in
    COCO alone, key points in COCO and YOLO: in other layouts they are left out, which `warn` gets as a sentence. Raises
    ConfigError when `out` holds something or a layout is unknown, DataError when the data is in another layout or an
    image is missing, StorageError.
    """
    path = Path(path).expanduser()
    require_new_folder(out)
    writer = _writer(to)
    # a file that states no split is one to train on: under its own name no layout would find it again
    splits = _splits_in(path, source).values()
    named = ("train" if split.files.serves_any and split.name not in SPLITS else split.name for split in splits)
    sets = {name: split._replace(name=name).read() for name, split in zip(named, splits, strict=True)}
    if source == _CORNERS:
        sets = {split: _from_corners(annotation_set) for split, annotation_set in sets.items()}
    if to != "coco" or (source != _CORNERS and next(iter(splits)).layout.name != "coco"):
        sets = _numbered_alike(sets)
    if to != "coco":
        sets = {split: _without_crowds(annotation_set, warn) for split, annotation_set in sets.items()}
    if not writer.keypoints:
        sets = {split: _without_points(annotation_set, warn, to) for split, annotation_set in sets.items()}
    paths = [image.path for annotation_set in sets.values() for image in annotation_set.images]
    missing = next((image for image in paths if not is_file(image)), None)
    if missing:
        raise DataError("an image is missing", file=missing, hint="ctnet data check lists them all")
    _require_images(paths, path)
    sets = place_images(sets, out, writer, link=link, progress=progress)
    files = writer.write(sets, out)
    return {split: replace(annotation_set, source=files[split]) for split, annotation_set in sets.items()}


def place_images(
    sets: Mapping[str, AnnotationSet], out: Path, writer: Writer, *, link: bool, progress: Progress | None = None
) -> dict[str, AnnotationSet]:
    """Copy or link the images of all splits to where the layout has them below `out`, and return the sets with those.

    Raises StorageError.
    """
    total, done = sum(len(annotation_set.images) for annotation_set in sets.values()), 0
    taken: set[Path] = set()
    placed = {}
    for split, annotation_set in sets.items():
        images = _renamed(annotation_set.images, out / writer.image_folder.format(split=split), taken)
        for old, new in zip(annotation_set.images, images, strict=True):
            _place(old.path, new.path, link)
            done += 1
            if progress:
                progress(done, total)
        placed[split] = replace(annotation_set, images=images)
    return placed


def _numbered_alike(sets: dict[str, AnnotationSet]) -> dict[str, AnnotationSet]:
    """Return the sets with one list of categories: where layouts know classes by name, splits may differ in them."""
    first = next(iter(sets.values())).categories
    if all(annotation_set.categories == first for annotation_set in sets.values()):
        return sets
    keys = dict.fromkeys(key for annotation_set in sets.values() for key in counted_names(annotation_set.categories))
    categories = tuple(Category(number, name) for number, (name, _) in enumerate(keys, start=1))
    label_of = {key: label for label, key in enumerate(keys)}
    alike = {}
    for split, annotation_set in sets.items():
        own = counted_names(annotation_set.categories)
        labels = np.array([label_of[key] for key in own], np.int64)
        images = tuple(replace(image, labels=labels[image.labels]) for image in annotation_set.images)
        alike[split] = replace(annotation_set, categories=categories, images=images)
    return alike


def _splits_in(path: Path, source: str) -> dict[str, Split]:
    """Return the splits at the path. Raises DataError when they are not in the layout `source`, see `convert`."""
    splits = find_splits(path)
    if source == "auto":
        return splits
    known = ["auto", _CORNERS, *(layout.name for layout in LAYOUTS)]
    wanted = layout_named("coco" if source == _CORNERS else source)
    if wanted is None:
        raise ConfigError(f"no data layout named {source!r}", known=", ".join(known), nearest=nearest(source, known))
    found = next(iter(splits.values())).layout
    if found.name != wanted.name:
        raise DataError(f"the data is not {wanted.title}", got=f"{path}: {found.title}", expected=wanted.title)
    return splits


def _require_images(paths: list[Path], root: Path) -> None:
    """Raise DataError unless files outside of the data set are images: the copies may be given to others."""
    inside = (root if root.is_dir() else root.parent).resolve()
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            read_image_size(path)


def _writer(name: str) -> Writer:
    layout = layout_named(name)
    if layout is None or layout.writer is None:
        known = [layout.name for layout in LAYOUTS if layout.writer]
        raise ConfigError(f"cannot write {name!r}", known=", ".join(known), nearest=nearest(name, known))
    return layout.writer


def _without_crowds(annotation_set: AnnotationSet, warn: Callable[[str], None] | None) -> AnnotationSet:
    images = tuple(_objects(image, ~image.crowd) for image in annotation_set.images)
    left_out = annotation_set.num_boxes - sum(len(image.labels) for image in images)
    if left_out and warn:
        warn(f"{annotation_set.split}: {left_out} crowd regions left out, which only COCO can describe")
    return replace(annotation_set, images=images)


def _without_points(annotation_set: AnnotationSet, warn: Callable[[str], None] | None, to: str) -> AnnotationSet:
    if annotation_set.keypoints is None:
        return annotation_set
    if warn:
        warn(f"{annotation_set.split}: key points left out, which {to} cannot describe")
    images = tuple(replace(image, keypoints=None) for image in annotation_set.images)
    return replace(annotation_set, images=images, keypoints=None)


def _objects(image: ImageRecord, keep: NDArray[np.bool_]) -> ImageRecord:
    names = ("boxes_xyxy", "labels", "crowd", "areas", "annotation_ids", "keypoints")
    arrays = {name: getattr(image, name) for name in names}
    fields: dict[str, Any] = {name: array[keep] for name, array in arrays.items() if array is not None}
    return replace(image, **fields)


def _renamed(images: tuple[ImageRecord, ...], folder: Path, taken: set[Path]) -> tuple[ImageRecord, ...]:
    """Return the records with their images in one folder; an equal name gets its image id in front.

    Names are equal that differ by case alone, as on some file systems, or by the suffix, without which most layouts
    name images. `taken` collects the names of all splits.
    """
    records = []
    for record in images:
        name = record.path.name
        while (key := folder / Path(name).stem.casefold()) in taken:
            name = f"{record.id}_{name}"
        taken.add(key)
        records.append(replace(record, path=folder / name))
    return tuple(records)


def _from_corners(annotation_set: AnnotationSet) -> AnnotationSet:
    """Return the boxes as they are meant: what was read as width and height is the second corner."""
    images = []
    for record in annotation_set.images:
        boxes = to_xywh(record.boxes_xyxy)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float32)
        images.append(replace(record, boxes_xyxy=boxes, areas=areas))
    return replace(annotation_set, images=tuple(images))


def _place(image: Path, target: Path, link: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            shutil.copyfile(image, target)
            return
        try:
            os.link(image.resolve(), target)
        except OSError:  # another disk, or one without hard links
            target.symlink_to(image.resolve())
    except OSError as error:
        raise StorageError("cannot place the image", file=target, got=error.strerror) from None


def require_new_folder(folder: Path) -> None:
    """Raise ConfigError when the folder already holds something: no file is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("the output folder is not empty", got=folder, hint="name a new one, or empty it")
