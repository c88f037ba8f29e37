"""From frames to detections, drawings and `predictions.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ctnet.config import Evaluation, Recipe
from ctnet.data.draw import draw_boxes
from ctnet.data.image import Image
from ctnet.errors import ConfigError, DataError
from ctnet.families import Family
from ctnet.files import write_file
from ctnet.limits import image_pixels
from ctnet.predict.ahead import ahead
from ctnet.predict.crops import Crops
from ctnet.predict.drawings import Drawings
from ctnet.predict.sources import Frame, Sources
from ctnet.predict.tracks import LOWEST, Tracks
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
    crops: Crops | None = None,
    share: Share = ALONE,
    *,
    track: bool = False,
) -> dict[str, Any]:
    """Return detections of at least `score` as the document that `out/predictions.json` holds.

    With `draw` each image goes to `out` under its own name, a video as an mp4 of its name; without `out`
    nothing is written. `crops` gets what was found. Several processes take every so many-th file each, and the first
    writes the document of all. `settings` None takes those of the recipe. With `track` the objects of videos have
    `track`, the number of their track, or None. After an interrupt the file holds the images done so far. `complete` is
    true when everything was read to its end. Raises StorageError when the disk refuses, MissingExtra where nothing can
    track.
    """
    settings = settings or detector.recipe.evaluation
    mine = _part(frames, share)
    total = mine.count_frames() if progress else 0
    run = _Run(detector, score, crops, track=track)
    done = False
    document = {
        **document_head(detector, score),
        "complete": False,
        **({"skipped": [str(path) for path in frames.skipped]} if frames.skipped else {}),
        "pictures": run.entries,
    }
    batches = ahead(batched(mine.read(detector.recipe.data.value_range), settings.batch_size))
    try:
        # decoding, detecting, and drawing and writing overlap
        with Drawings(out) if out and draw else nullcontext() as drawings, _Behind() as behind, closing(batches):
            if drawings and share.ranks > 1:
                drawings.reserve([file for file in frames.files if isinstance(file, Path)])
            for batch in batches:
                results = detector.detect([frame.image_bgr for frame in batch], settings)
                behind.do(partial(run.add, batch, results, drawings))
                if progress:
                    progress(len(run.entries), max(total, len(run.entries)))
            behind.wait()
        if progress:
            progress(len(run.entries), len(run.entries))
        _join(run.entries, mine.failures, frames, share)
        done = True
    finally:
        frames.failures[:] = mine.failures
        document["complete"] = done and not frames.failures
        document["failures"] = failures_of(frames)
        if out and share.rank == 0 and (run.entries or done):
            write_file(out / "predictions.json", f"{json.dumps(document, indent=2)}\n".encode())
    return document


def document_head(detector: Detects, score: float) -> dict[str, Any]:
    """Return how a document begins: what was asked, of which detector."""
    return {
        "schema": "ctnet.predict/1",
        "model": detector.recipe.name,
        "score": score,
        "categories": [{"id": category.id, "name": category.name} for category in detector.categories],
        **_described(detector.family),
    }


def failures_of(frames: Sources) -> list[dict[str, str | None]]:
    """Return the sources that could not be read and why."""
    return [{"file": f.facts.get("file"), "error": f.message} for f in frames.failures]


def _part(frames: Sources, share: Share) -> Sources:
    """Return the files of this process. Raises ConfigError for streams, which only one process can read."""
    streams = [source for source in frames.files if not isinstance(source, Path)]
    if share.ranks > 1 and streams:
        raise ConfigError("several processes share files, and a stream is read by one", hint="leave --nproc out")
    return replace(frames, files=frames.files[share.rank :: share.ranks], failures=[])


def _join(entries: list[dict[str, Any]], failures: list[DataError], frames: Sources, share: Share) -> None:
    """Replace this process's entries and failures by those of all, in the order of the files."""
    if share.ranks == 1:
        return
    place = {str(path): number for number, path in enumerate(frames.files)}
    parts = share.gather((list(entries), list(failures)))
    entries[:] = sorted((entry for part, _ in parts for entry in part), key=lambda entry: place[entry["file"]])
    failures[:] = [failure for _, part in parts for failure in part]


class _Behind:
    """Runs one piece of work at a time in a thread, in order; the next one waits for it."""

    def __enter__(self) -> _Behind:
        self._pool = ThreadPoolExecutor(1, "ctnet-write")
        self._running: Future[None] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def do(self, work: Callable[[], None]) -> None:
        self.wait()
        self._running = self._pool.submit(work)

    def wait(self) -> None:
        """Wait for the work to end. Raises what it raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


class _Run:
    """What was found so far."""

    def __init__(self, detector: Detects, score: float, crops: Crops | None, *, track: bool) -> None:
        self.entries: list[dict[str, Any]] = []
        self._detector = detector
        self._score = score
        self._crops = crops
        self._track = track
        self._tracks: tuple[Path, Tracks] | None = None

    def add(self, frames: Sequence[Frame], results: Sequence[Detections], drawings: Drawings | None) -> None:
        """Add the detections of frames, and draw them."""
        for frame, found in zip(frames, results, strict=True):
            numbers = self._numbers(frame, found)
            keep = found.scores >= self._score
            kept = found.select(keep)
            entry = frame_entry(frame, kept, self._detector)
            kept_numbers = None
            if numbers is not None:
                kept_numbers = [number for number, kept_one in zip(numbers, keep, strict=True) if kept_one]
                for one, number in zip(entry["detections"], kept_numbers, strict=True):
                    one["track"] = number
            if self._crops:
                self._crops.save(frame, kept)
            if drawings:
                entry["drawn"] = drawings.save(frame, _draw(frame, kept, self._detector, kept_numbers))
            self.entries.append(entry)

    def _numbers(self, frame: Frame, found: Detections) -> list[int | None] | None:
        if not self._track or frame.fps is None:
            return None
        if self._tracks is None or self._tracks[0] != frame.path:
            self._tracks = frame.path, Tracks(frame.fps, self._score)
        numbers: list[int | None] = [None] * len(found)
        strong = np.flatnonzero(found.scores >= min(LOWEST, self._score))
        for position, number in zip(strong, self._tracks[1].update(found.select(strong)), strict=True):
            numbers[position] = number
        return numbers


def batched(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
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


def _described(family: Family) -> dict[str, Any]:
    """Return what a document says about the key points of its objects; indices of the skeleton count from 0."""
    schema = family.keypoints
    if schema is None or "keypoints" not in family.instance_names:
        return {}
    return {"keypoints": {"names": list(schema.names), "skeleton": [list(ends) for ends in schema.skeleton]}}


def frame_entry(frame: Frame, found: Detections, detector: Detects) -> dict[str, Any]:
    """Return what the document holds of an image or a frame."""
    height, width = frame.image_bgr.shape[:2]
    entry: dict[str, Any] = {"file": frame.shown or str(frame.path), "width": width, "height": height}
    if frame.frame_number is not None:
        entry["frame"] = frame.frame_number
    schema = detector.family.keypoints
    names = schema.names if schema else ()
    return {**entry, "detections": found.to_dicts(detector.categories, names)}


def _draw(frame: Frame, found: Detections, detector: Detects, numbers: Sequence[int | None] | None) -> Image:
    boxes, points, schema = found.boxes_xyxy, found.keypoints, detector.family.keypoints
    labels, categories = found.labels, detector.categories
    drawn = draw_boxes(frame.image_bgr, boxes, labels, categories, found.scores, points, schema, numbers)
    detector.family.draw(drawn, found)
    return drawn
