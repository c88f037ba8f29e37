"""The rules of the check that cost little, before every training and evaluation: what stops it and what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ctnet.config import Data
from ctnet.data.checks.boxes import check_geometry, check_learnable, check_present, check_unannotated
from ctnet.data.checks.entries import Tables, tables_of
from ctnet.data.checks.findings import Finding, found
from ctnet.data.checks.images import (
    FORBIDDEN,
    UNREADABLE,
    Look,
    check_images,
    check_repeated_files,
    check_twins,
    confirmed,
)
from ctnet.data.checks.look_cache import look_at_headers
from ctnet.data.remarks import remarks_on
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Progress

_STOPS = (
    "images-none", "categories-refused", "image-missing", FORBIDDEN, "image-file-repeated", "image-left-out",
    "image-size-differs", "box-corners", "box-normalised", "boxes-unusable",
)  # fmt: skip
"""the findings with which a set cannot be used, the first to be reported first"""
_NAMED = 5


class Usable(NamedTuple):
    """What is worth reporting about sets that can be used, and the image files of them that cannot be read."""

    findings: list[Finding]
    unreadable: frozenset[Path]


def without(annotation_set: AnnotationSet, files: frozenset[Path]) -> AnnotationSet:
    """Return the set without the images in these files."""
    images = tuple(image for image in annotation_set.images if image.path not in files)
    return replace(annotation_set, images=images) if files else annotation_set


def check_usable(*sets: AnnotationSet, **options: Any) -> list[Finding]:
    """Return the findings of `look_over`, which takes the same arguments and raises the same errors."""
    return look_over(*sets, **options).findings


def look_over(
    *sets: AnnotationSet, settings: Data | None = None, learn: bool = True, progress: Progress | None = None
) -> Usable:
    """Return what is worth reporting about sets that can be used all the same.

    With `learn`, the first one is trained on. Image files are looked at by their headers, once until they change.
    Raises DataError with the message that the check has for what stands in the way.
    """
    settings = settings or Data()
    tables = [tables_of(annotation_set) for annotation_set in sets]
    files = [image.path for table in tables for image in table.images]
    looks = iter(look_at_headers([table.file for table in tables], files, progress))
    seen = [(table, [next(looks) for _ in table.images]) for table in tables]
    findings: list[Finding] = []
    notes = dict.fromkeys((annotation_set.source, note) for annotation_set in sets for note in annotation_set.notes)
    for source, note in notes:
        findings += found("annotations-doubtful", source, [note])
    for sentence in remarks_on(files, settings.value_range) if sets else ():
        findings += [replace(f, message=sentence) for f in found("image-converted", sets[0].source, [sentence])]
    for number, (table, its_looks) in enumerate(seen):
        findings += _of_split(table, its_looks, learn=learn and number == 0)
        findings += _left_out(table, its_looks, settings)
    findings += check_twins(confirmed(seen))
    if settings.allow_background:
        findings = [replace(f, severity="warning") if f.code == "boxes-unusable" else f for f in findings]
    stops = [finding for finding in findings if finding.code in _STOPS and finding.severity == "error"]
    if stops:
        first = min(stops, key=lambda finding: _STOPS.index(finding.code))
        hint = "; ".join(filter(None, [first.hint, "ctnet data check lists every problem"]))
        raise DataError(first.message, annotations=first.file, hint=hint)
    looked_at = (pair for table, looks in seen for pair in zip(table.images, looks, strict=True))
    return Usable(findings, frozenset(image.path for image, look in looked_at if look.code in UNREADABLE))


def say_of(finding: Finding) -> str:
    """Return the line of a finding that does not stop a command."""
    text = f"{finding.message}; {finding.hint}" if finding.hint else finding.message
    return text if finding.severity == "info" else f"warning: {text}"


def _of_split(tables: Tables, looks: Sequence[Look], *, learn: bool) -> Iterator[Finding]:
    yield from (f for f in check_present(tables) if f.code != "boxes-none" or not learn)
    yield from check_repeated_files(tables)
    yield from (f for f in check_images(tables, looks) if f.code not in UNREADABLE)
    yield from check_geometry(tables)
    if len(tables.boxes_xywh):
        yield from check_unannotated(tables)
    if learn:
        yield from check_learnable(tables)
    repeated = [f"name {name}: {n} categories" for name, n in Counter(tables.category_names).items() if n > 1]
    yield from found("category-repeated", tables.file, repeated)


def _left_out(tables: Tables, looks: Sequence[Look], settings: Data) -> Iterator[Finding]:
    """Yield the one finding about all images that cannot be read: an error if none is left or none may be skipped."""
    bad = [f"{image.name}: {k.words}" for image, k in zip(tables.images, looks, strict=True) if k.code in UNREADABLE]
    for finding in found("image-left-out", tables.file, bad, of=len(looks)):
        skipped = settings.on_bad_image == "skip" and len(bad) < len(looks)
        more = [*bad[1:_NAMED], *([f"and {len(bad) - _NAMED} more"] if len(bad) > _NAMED else [])]
        message = "; ".join([finding.message, *more])
        if skipped:
            finding = replace(finding, severity="warning", hint="left out; data.on_bad_image=error stops instead")
        yield replace(finding, message=message)
