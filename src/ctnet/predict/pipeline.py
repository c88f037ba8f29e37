"""From frames to detections, drawings and `predictions.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ctnet.config import Evaluation, Recipe
from ctnet.data.draw import draw_boxes
from ctnet.data.image import Image
from ctnet.errors import DataError
from ctnet.families import Family
from ctnet.files import write_file
from ctnet.limits import image_pixels
from ctnet.predict.drawings import Drawings
from ctnet.predict.sources import Frame, Sources
from ctnet.types import Category, Detections, Progress, Share

ALONE = Share()


class Detects(Protocol):
    """The detector interface used here, as in `ctnet.detect.detector.Detector`."""

    @property
    def recipe(self) -> Recipe:
        """The recipe it was trained with."""

    @property
    def family(self) -> Family:
        """The kind of detector it is."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """Its classes in label order."""

    def detect(self, images: Sequence[Image], settings: Evaluation | None = None) -> list[Detections]:
        """Return the detections of each image."""


def run_predict(
    detector: Detects,
    frames: Sources,
    out: Path | None,
    score: float,
    draw: bool = True,
    settings: Evaluation | None = None,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> dict[str, Any]:
    """Return detections of at least `score` as the document that `out/predictions.json` holds.

    With `draw` each image goes to `out` under its own name, a video as an mp4 of its name; without `out`
    nothing is written. Several processes take every so many-th file each, and the first writes the document of all.
    `settings` None takes those of the recipe. After
    an interrupt the file holds the images done so far, with `complete` false. Raises StorageError when the
    disk refuses.
    """
    settings = settings or detector.recipe.evaluation
    mine = replace(frames, files=frames.files[share.rank :: share.ranks], failures=[])
    total = mine.count_frames() if progress else 0
    entries: list[dict[str, Any]] = []
    document = {
        "schema": "ctnet.predict/1",
        "model": detector.recipe.name,
        "score": score,
        "categories": [{"id": category.id, "name": category.name} for category in detector.categories],
        "complete": False,
        "pictures": entries,
    }
    try:
        with Drawings(out) if out and draw else nullcontext() as drawings:
            if drawings and share.ranks > 1:
                drawings.reserve(frames.files)
            for batch in _batches(mine, settings.batch_size):
                results = detector.detect([frame.image_bgr for frame in batch], settings)
                for frame, found in zip(batch, results, strict=True):
                    kept = found.above(score)
                    entry = _entry(frame, kept, detector.categories)
                    if drawings:
                        entry["drawn"] = drawings.save(frame, _draw(frame, kept, detector))
                    entries.append(entry)
                if progress:
                    progress(len(entries), max(total, len(entries)))
        _join(entries, mine.failures, frames, share)
        document["complete"] = True
    finally:
        frames.failures[:] = mine.failures
        document["failures"] = [{"file": f.facts.get("file"), "error": f.message} for f in frames.failures]
        if out and share.rank == 0 and (entries or document["complete"]):
            write_file(out / "predictions.json", f"{json.dumps(document, indent=2)}\n".encode())
    return document


def _join(entries: list[dict[str, Any]], failures: list[DataError], frames: Sources, share: Share) -> None:
    """Replace this process's entries and failures by those of all, in the order of the files."""
    place = {str(path): number for number, path in enumerate(frames.files)}
    parts = share.gather((list(entries), list(failures)))
    entries[:] = sorted((entry for part, _ in parts for entry in part), key=lambda entry: place[entry["file"]])
    failures[:] = [failure for _, part in parts for failure in part]


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield `size` frames at a time, fewer where they together have the pixels of the largest image that is read."""
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        pixels = sum(math.prod(f.image_bgr.shape[:2]) for f in batch)
        if len(batch) == size or pixels >= image_pixels().most:
            yield batch
            batch = []
    if batch:
        yield batch


def _entry(frame: Frame, found: Detections, categories: tuple[Category, ...]) -> dict[str, Any]:
    height, width = frame.image_bgr.shape[:2]
    entry: dict[str, Any] = {"file": str(frame.path), "width": width, "height": height}
    if frame.frame_number is not None:
        entry["frame"] = frame.frame_number
    return {**entry, "detections": found.to_dicts(categories)}


def _draw(frame: Frame, found: Detections, detector: Detects) -> Image:
    drawn = draw_boxes(frame.image_bgr, found.boxes_xyxy, found.labels, detector.categories, found.scores)
    detector.family.draw(drawn, found)
    return drawn
