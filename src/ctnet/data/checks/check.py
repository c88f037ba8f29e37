"""A whole data set looked over without stopping at the first problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctnet.data.checks.boxes import Limits, check_boxes, check_learnable, check_present
from ctnet.data.checks.entries import Tables, tabulate
from ctnet.data.checks.findings import Finding, found
from ctnet.data.checks.images import (
    check_images,
    check_repeated_files,
    check_twins,
    confirmed,
    decode_images,
    skim_images,
)
from ctnet.data.checks.keypoints import check_keypoints
from ctnet.data.layouts.coco import coco_dict
from ctnet.data.layouts.layout import CocoContent, Repairable, Split, Tolerate
from ctnet.data.layouts.table import find_splits, pick_split
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Progress

_BOX_SIDES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)
_ASPECTS = (0, 0.5, 0.75, 1, 1.34, 2, np.inf)
_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split.

    `classes` has boxes per class, `box_sides` boxes per square root of area in pixels, `aspect_ratios`
    images per width : height.
    """

    split: str
    file: str
    images: int
    boxes: int
    classes: dict[str, int]
    box_sides: dict[str, int]
    aspect_ratios: dict[str, int]


@dataclass(frozen=True)
class CheckReport:
    """Everything found, errors first, and a summary of each split that could be read."""

    path: Path
    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        """Return how many findings there are of a severity: error, warning or info."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the JSON document `ctnet.data.check/1`."""
        return {
            "schema": "ctnet.data.check/1",
            "path": str(self.path),
            "counts": {severity: self.count(severity) for severity in _SEVERITIES},
            "findings": [finding.to_dict() for finding in self.findings],
            "splits": [asdict(split) for split in self.splits],
        }


def check(
    path: str | Path,
    splits: Sequence[str] | None = None,
    *,
    images: bool = True,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Return all that is wrong or worth knowing about a data set, of all its splits unless some are named.

    Without `images` none is decoded whose header says its size: damage inside of them stays unknown. Raises DataError
    only when there is no data set at the path or no such split.
    """
    path = Path(path).expanduser()
    available = find_splits(path)
    chosen = {name: pick_split(path, available, name) for name in splits} if splits else available
    findings: list[Finding] = []
    tables: list[Tables] = []
    reported: set[str] = set()  # Pascal VOC reads the same files for every split
    for name, split in chosen.items():
        file = split.files.file
        unreadable: list[DataError] = []
        try:
            content, image_folders, of_files = _content(split, unreadable.append)
            table, problems = tabulate(content, file, image_folders, name, of_files.sought if of_files else "")
            problems += found("annotations-doubtful", file, of_files.notes if of_files else [])
        except DataError as error:
            unreadable.append(error)
            table, problems = None, []
        new = [(error, text) for error in unreadable if (text := error.in_a_line("file")) not in reported]
        reported.update(text for _, text in new)
        repairable = [text for error, text in new if isinstance(error, Repairable)]
        findings += found("annotations-unreadable", file, [text for _, text in new if text not in repairable])
        findings += found("annotations-repairable", file, repairable)
        if table is None:
            continue
        tables.append(table)
        findings += [*problems, *check_repeated_files(table), *check_boxes(table, limits or Limits())]
        findings += check_keypoints(table)
        findings += [*check_present(table), *(check_learnable(table) if name == "train" else ())]
    listed = [image.path for table in tables for image in table.images]
    looks = iter(decode_images(listed, progress) if images else skim_images(listed, progress))
    seen = [(table, [next(looks) for _ in table.images]) for table in tables]
    for table, its_looks in seen:
        findings += check_images(table, its_looks)
    findings += check_twins(seen if images else confirmed(seen))
    findings += _missing_classes(tables)
    train = available.get("train")
    if splits is None and train and not train.files.serves_any and "val" not in available:
        findings += found("split-missing", train.files.file, ["val"])
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return CheckReport(path, tuple(_summary(table) for table in tables), tuple(findings))


def _content(split: Split, tolerate: Tolerate) -> tuple[CocoContent, tuple[Path, ...], AnnotationSet | None]:
    """Return any layout as COCO content, its image folders, and the set where its files are not COCO already."""
    if split.layout.content:
        return split.layout.content(split.files, tolerate), split.files.image_folders, None
    annotation_set = split.read(tolerate)
    return coco_dict(annotation_set), (Path(),), annotation_set


def _missing_classes(tables: Sequence[Tables]) -> Iterator[Finding]:
    """Yield the classes that some split has boxes of and another one lacks."""
    present = [{table.category_names[i] for i in np.unique(table.category)} for table in tables]
    everywhere = set().union(*present)
    for table, classes in zip(tables, present, strict=True):
        lacking = [f"{name}: none in {table.split}" for name in sorted(everywhere - classes)]
        yield from found("class-missing", table.file, lacking)


def _summary(tables: Tables) -> SplitSummary:
    counts = np.bincount(tables.category, minlength=len(tables.category_names)).tolist()
    sides = np.sqrt(np.prod(np.maximum(tables.boxes_xywh[:, 2:], 0), axis=1))
    aspects = [p.width / p.height for p in tables.images if p.width and p.height]
    return SplitSummary(
        split=tables.split,
        file=str(tables.file),
        images=len(tables.images),
        boxes=len(tables.boxes_xywh),
        classes=dict(zip(tables.category_names, counts, strict=True)),
        box_sides=_histogram(sides, _BOX_SIDES),
        aspect_ratios=_histogram(np.array(aspects), _ASPECTS),
    )


def _histogram(values: NDArray[np.float64], edges: Sequence[float]) -> dict[str, int]:
    """Return counts by words for the range: `32-64`, and `512+` for the last."""
    counts, _ = np.histogram(values, edges)
    ranges = list(pairwise(edges))
    names = [f"{low:g}+" if high == np.inf else f"{low:g}-{high:g}" for low, high in ranges]
    return dict(zip(names, counts.tolist(), strict=True))
