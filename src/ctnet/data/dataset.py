"""Open a data set of any layout, and check it quickly before training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from ctnet.config.metadata import sound_categories
from ctnet.data.box_form import Float64, looks_like_corners, looks_normalised, reaches_outside, to_xywh
from ctnet.data.layouts.coco import read_image_list
from ctnet.data.layouts.table import find_splits, pick_split
from ctnet.errors import DataError
from ctnet.files import is_file
from ctnet.types import AnnotationSet, ImageRecord


def open_dataset(path: str | Path, split: str) -> AnnotationSet:
    """Return one split of a COCO, VOC or YOLO folder, a COCO json, a data.yaml, or a YAML that names files.

    Raises DataError when no layout is recognised, the split is absent or the annotations cannot be
    understood.
    """
    path = Path(path).expanduser()
    return pick_split(path, find_splits(path), split).read()


def open_image_list(path: str | Path, split: str) -> AnnotationSet:
    """Return the images to detect on, without annotations: of a COCO file that has none, or of a data set's split.

    Raises DataError as `open_dataset` does.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ".json" and is_file(path):
        return read_image_list(path, split)
    return pick_split(path, find_splits(path), split).read()


def has_split(path: Path, split: str) -> bool:
    """Return whether there is such a split; a file that states none serves as any. Raises DataError."""
    splits = find_splits(path)
    try:
        pick_split(path, splits, split)
    except DataError:
        return False
    return True


def check_usable(annotation_set: AnnotationSet) -> list[str]:
    """Return sentences of warning about a split that can be trained on all the same.

    Reads no image. Raises DataError when there are no images, a file is missing, no weights could name the
    categories, or most boxes are of another form than they should be.
    """
    images = annotation_set.images
    if not images:
        raise DataError("there are no images", file=annotation_set.source, split=annotation_set.split)
    try:
        sound_categories(annotation_set.categories)
    except ValueError as error:
        raise DataError(f"the categories cannot be trained on: {error}", file=annotation_set.source) from None
    missing = [image.path for image in images if not is_file(image.path)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images are missing",
            annotations=annotation_set.source,
            first=missing[0],
            hint="ctnet data check lists them all",
        )
    _refuse_shared_files(annotation_set)
    if not annotation_set.num_boxes:
        where = f", labels were sought in {annotation_set.sought}" if annotation_set.sought else ""
        return [f"{annotation_set.source.name}: none of {len(images)} images has a box{where}"]
    boxes, sizes = _boxes_and_sizes(images)
    _refuse_other_forms(annotation_set, boxes, sizes)
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    names = Counter(category.name for category in annotation_set.categories)
    outside = reaches_outside(boxes, sizes) & ~empty
    without = sum(not len(image.labels) for image in images)
    warnings = [
        f"{count} categories are called {name!r}: they are different classes"
        for name, count in names.items()
        if count > 1
    ]
    if empty.any():
        where = _where(annotation_set, int(np.argmax(empty)))
        warnings.append(f"{_count(empty.sum(), 'box', 'boxes')} without width or height left out, first: {where}")
    if outside.any():
        where = _where(annotation_set, int(np.argmax(outside)))
        warnings.append(f"{_count(outside.sum(), 'box', 'boxes')} clipped to the image, first: {where}")
    if without:
        warnings.append(f"{without} of {len(images)} images have no boxes (used as background)")
    return warnings


def _refuse_shared_files(annotation_set: AnnotationSet) -> None:
    id_of: dict[Path, int] = {}
    for image in annotation_set.images:
        other = id_of.setdefault(image.path, image.id)
        if other != image.id:
            raise DataError(
                "two images of the annotations are one file",
                annotations=annotation_set.source,
                file=image.path,
                got=f"images {other} and {image.id}",
                hint="restore the folders in which the files had the same name, or merge the entries",
            )


def _boxes_and_sizes(images: tuple[ImageRecord, ...]) -> tuple[Float64, Float64]:
    """Return all boxes (N,4) as x, y, width, height and the (N,2) width, height of their images."""
    corners = np.concatenate([image.boxes_xyxy for image in images]).astype(np.float64)
    counts = [len(image.labels) for image in images]
    sizes = np.repeat([(image.width, image.height) for image in images], counts, axis=0).astype(np.float64)
    return to_xywh(corners), sizes


def _refuse_other_forms(annotation_set: AnnotationSet, boxes: Float64, sizes: Float64) -> None:
    if looks_like_corners(boxes, sizes):
        first = int(np.argmax(reaches_outside(boxes, sizes)))
        message = "most boxes look like corners x1, y1, x2, y2 stored as x, y, width, height"
        hint = f"ctnet data convert {annotation_set.source} --from xyxy --out FOLDER"
    elif looks_normalised(boxes, sizes):
        first = 0
        message = "most boxes lie within one pixel: fractions of the image where pixels are expected"
        hint = "multiply x and width by the image's width, y and height by its height"
    else:
        return
    raise DataError(
        message,
        hint=hint,
        file=annotation_set.source,
        first=_where(annotation_set, first),
        got=[round(v, 3) for v in boxes[first].tolist()],
        image="{:.0f} x {:.0f}".format(*sizes[first]),
    )


def _where(annotation_set: AnnotationSet, index: int) -> str:
    """Return the words for the box at a position in the concatenation of all images' boxes."""
    for image in annotation_set.images:
        if index < len(image.labels):
            return f"annotation {image.annotation_ids[index]} in {image.path.name}"
        index -= len(image.labels)
    raise IndexError(index)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
