"""Open a data set of any layout."""

from __future__ import annotations

from pathlib import Path

from ctnet.data.layouts.table import find_splits, pick_split
from ctnet.errors import DataError
from ctnet.types import AnnotationSet


def open_dataset(path: str | Path, split: str) -> AnnotationSet:
    """Return one split of a COCO, VOC or YOLO folder, a COCO json, a data.yaml, or a YAML that names files.

    Raises DataError when no layout is recognised, the split is absent or the annotations cannot be
    understood.
    """
    path = Path(path).expanduser()
    return pick_split(path, find_splits(path), split).read()


def has_split(path: Path, split: str) -> bool:
    """Return whether there is such a split; a file that states none serves as any. Raises DataError."""
    splits = find_splits(path)
    try:
        pick_split(path, splits, split)
    except DataError:
        return False
    return True
