"""From frames to detections, drawings and `predictions.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from ctnet.config import Evaluation, Recipe
from ctnet.data.draw import draw_boxes
from ctnet.data.image import Image
from ctnet.families import Family
from ctnet.files import write_file
from ctnet.limits import image_pixels
from ctnet.predict.crops import Crops
from ctnet.predict.drawings import Drawings
from ctnet.predict.sources import Frame, Sources
from ctnet.types import Category, Detections, Progress


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
    crops: Crops | None = None,
) -> dict[str, Any]:
    """Return detections of at least `score` as the document that `out/predictions.json` holds.

    With `draw` each image goes to `out` under its own name, a video as an mp4 of its name; without `out`
    nothing is written. `crops` gets what was found. `settings` None takes those of the recipe. After
    an interrupt the file holds the images done so far, with `complete` false. Raises StorageError when the
    disk refuses.
    """
    settings = settings or detector.recipe.evaluation
    total = frames.count_frames() if progress else 0
    entries: list[dict[str, Any]] = []
    document = {
        **document_head(detector, score),
        "complete": False,
        "pictures": entries,
    }
    try:
        with Drawings(out) if out and draw else nullcontext() as drawings:
            for batch in batches(frames, settings.batch_size):
                results = detector.detect([frame.image_bgr for frame in batch], settings)
                for frame, found in zip(batch, results, strict=True):
                    kept = found.above(score)
                    entry = frame_entry(frame, kept, detector)
                    if crops:
                        crops.save(frame, kept)
                    if drawings:
                        entry["drawn"] = drawings.save(frame, _draw(frame, kept, detector))
                    entries.append(entry)
                if progress:
                    progress(len(entries), max(total, len(entries)))
        document["complete"] = True
    finally:
        document["failures"] = failures_of(frames)
        if out and (entries or document["complete"]):
            write_file(out / "predictions.json", f"{json.dumps(document, indent=2)}\n".encode())
    return document


def document_head(detector: Detects, score: float) -> dict[str, Any]:
    """Return how a document begins: what was asked, of which detector."""
    return {
        "schema": "ctnet.predict/1",
        "model": detector.recipe.name,
        "score": score,
        "categories": [{"id": category.id, "name": category.name} for category in detector.categories],
    }


def failures_of(frames: Sources) -> list[dict[str, str | None]]:
    """Return the sources that could not be read and why."""
    return [{"file": f.facts.get("file"), "error": f.message} for f in frames.failures]


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
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


def frame_entry(frame: Frame, found: Detections, detector: Detects) -> dict[str, Any]:
    """Return what the document holds of an image or a frame."""
    height, width = frame.image_bgr.shape[:2]
    entry: dict[str, Any] = {"file": str(frame.path), "width": width, "height": height}
    if frame.frame_number is not None:
        entry["frame"] = frame.frame_number
    return {**entry, "detections": found.to_dicts(detector.categories)}


def _draw(frame: Frame, found: Detections, detector: Detects) -> Image:
    drawn = draw_boxes(frame.image_bgr, found.boxes_xyxy, found.labels, detector.categories, found.scores)
    detector.family.draw(drawn, found)
    return drawn
