"""Open a data set of any layout."""

from __future__ import annotations

from pathlib import Path

from ctnet.data.layouts.coco import read_image_list
from ctnet.data.layouts.table import find_splits, pick_split
from ctnet.errors import DataError
from ctnet.files import is_file
from ctnet.types import AnnotationSet


def open_dataset(path: str | Path, split: str) -> AnnotationSet:
    """Return one split of a COCO, VOC, YOLO or WIDER FACE folder, a COCO json, a data.yaml, or a YAML that names files.

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
