"""What a run wrote about itself, written as it goes, so that long videos take no memory: JSON, and boxes as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ctnet.files import replacing
from ctnet.predict.anonymize.plan import Place
from ctnet.types import Category

COLUMNS = ("file", "frame", "seconds", "track", "class", "score", "x1", "y1", "x2", "y2", "turn", "reason")


class Pictures:
    """The open list `pictures` of a document."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._separator = "\n"

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an image or a frame."""
        self._file.write(f"{self._separator}    {json.dumps(entry)}")
        self._separator = ",\n"


@contextmanager
def writing_document(path: Path, head: Mapping[str, Any], tail: dict[str, Any]) -> Iterator[Pictures]:
    """Yield the list `pictures` of a JSON document between `head` and `tail`, which is read at the end.

    The document is whole also when the block is left by an error. Raises StorageError when the disk refuses.
    """
    stopped: BaseException | None = None
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=2).removesuffix("\n}") + ',\n  "pictures": [')
        try:
            yield Pictures(file)
        except BaseException as error:
            stopped = error
        end = json.dumps(tail, indent=2).removeprefix("{\n")
        file.write(f"\n  ],\n{end}\n")
    if stopped is not None:
        raise stopped


class Boxes:
    """Rows of what was hidden, boxes in pixels, before `--mask-scale`."""

    def __init__(self, file: TextIO, categories: Sequence[Category]) -> None:
        self._rows = csv.writer(file, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self._categories = categories

    def add(self, source: Path, frame: int | None, seconds: float | None, places: Sequence[Place]) -> None:
        """Add the places of an image or a frame."""
        for place in places:
            self._rows.writerow(
                [
                    source, frame, None if seconds is None else f"{seconds:.3f}", place.track,
                    None if place.label is None else self._categories[place.label].name,
                    None if place.score is None else f"{place.score:.5f}",
                    *(f"{side:.2f}" for side in (*place.box, place.turn)), place.reason,
                ]
            )  # fmt: skip


@contextmanager
def writing_boxes(path: Path | None, categories: Sequence[Category]) -> Iterator[Boxes | None]:
    """Yield what writes a CSV file, whole or not at all, or None without a path. Raises StorageError."""
    if path is None:
        yield None
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield Boxes(file, categories)
