"""From frames to anonymised images and videos, and the document about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ctnet.config import Evaluation
from ctnet.data.image import Image, write_image
from ctnet.errors import ConfigError, DataError
from ctnet.predict.ahead import ahead
from ctnet.predict.anonymize.areas import Areas
from ctnet.predict.anonymize.documents import Boxes, Pictures, writing_boxes, writing_document
from ctnet.predict.anonymize.encoder import VideoCopy, plan_copy
from ctnet.predict.anonymize.frames import timed_frames
from ctnet.predict.anonymize.linking import Linker
from ctnet.predict.anonymize.masks import How, Outline, hide, mask_over, whole
from ctnet.predict.anonymize.metadata import require_pillow, write_with_metadata
from ctnet.predict.anonymize.plan import Cuts, Place, plan_frames
from ctnet.predict.anonymize.steady import Sampler
from ctnet.predict.crops import Crops
from ctnet.predict.landmarks import turns_of
from ctnet.predict.names import Names, kept_suffix
from ctnet.predict.pipeline import Detects, batched, document_head, failures_of, frame_entry
from ctnet.predict.sources import Frame, Sources
from ctnet.types import Detections, Progress

DOCUMENT = "predictions.json"


@dataclass(frozen=True)
class Hiding:
    """What is hidden, and how.

    `labels` are the classes, None all of them. `lost` says what happens where an object that was seen is not found any
    more: `keep` the mask where it was last, or hide the whole frame, `blur-all`. An `outline` of None is an ellipse for
    objects with key points, a box for others. `every` is the number of frames of a video of which one is shown to the
    detector. `metadata` is copied only if set.
    """

    how: How
    lost: Literal["keep", "blur-all"] = "keep"
    scale: float = 1.3
    outline: Outline | None = None
    labels: frozenset[int] | None = None
    areas: Areas = Areas()  # noqa: RUF009 - frozen
    every: int = 1
    boxes_out: Path | None = None
    metadata: bool = False


def run_anonymize(
    detector: Detects,
    frames: Sources,
    out: Path,
    score: float,
    hiding: Hiding,
    settings: Evaluation | None = None,
    progress: Progress | None = None,
    crops: Crops | None = None,
) -> dict[str, Any]:
    """Return what was written into `out`: `files`, and whether it is `complete`; its document has the detections, too.

    Each image goes to `out` under its own name, each video too, read twice: objects are found and joined into tracks,
    then hidden. Raises ConfigError for sources that cannot be read twice, MissingExtra, and StorageError when the disk
    refuses.
    """
    if any(not isinstance(file, Path) for file in frames.files):
        raise ConfigError("cameras, addresses and standard input cannot be anonymised, for a video is read twice")
    if hiding.metadata:
        require_pillow()
    settings = settings or detector.recipe.evaluation
    tail: dict[str, Any] = {"files": [], "complete": False, "failures": []}
    head = {**document_head(detector, score), "anonymized": _described(detector, hiding)}
    with ExitStack() as stack:
        boxes = stack.enter_context(writing_boxes(hiding.boxes_out, detector.categories))
        pictures = stack.enter_context(writing_document(out / DOCUMENT, head, tail))
        run = _Run(detector, frames, out, score, hiding, tail["files"], pictures, boxes, crops, progress)
        try:
            sampler = Sampler(
                lambda chosen: detector.detect([frame.image_bgr for frame in chosen], settings),
                hiding.every,
                run.counts,
            )
            read = batched(frames.read(detector.recipe.data.value_range), settings.batch_size * hiding.every)
            for batch in stack.enter_context(closing(ahead(read))):
                for frame, found in zip(batch, sampler.results(batch), strict=True):
                    run.add(frame, found)
            run.finish_video()
            tail["complete"] = not frames.failures
        finally:
            tail["failures"] = failures_of(frames)
    return {**head, **tail}


def _described(detector: Detects, hiding: Hiding) -> dict[str, Any]:
    names = [category.name for label, category in enumerate(detector.categories) if _wanted(label, hiding)]
    return {
        "how": hiding.how, "lost": hiding.lost, "mask_scale": hiding.scale, "mask_shape": hiding.outline or "auto",
        "classes": names, "detect_every": hiding.every,
    }  # fmt: skip


def _wanted(label: int, hiding: Hiding) -> bool:
    return hiding.labels is None or label in hiding.labels


class _Found:
    """What the first pass knows of a video."""

    def __init__(self, frame: Frame, score: float) -> None:
        self.path = frame.path
        self.fps = frame.fps or 25.0
        self.size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
        self.count = 0
        self.linker = Linker(self.fps, score)
        self.cuts = Cuts()
        self.with_points = False


class _Run:
    """Takes frames with their detections, in order."""

    def __init__(
        self, detector: Detects, frames: Sources, out: Path, score: float, hiding: Hiding, files: list[dict[str, Any]],
        pictures: Pictures, boxes: Boxes | None, crops: Crops | None, progress: Progress | None,
    ) -> None:  # fmt: skip
        self._detector = detector
        self._frames = frames
        self._out = out
        self._score = score
        self._hiding = hiding
        self._files = files
        self._pictures = pictures
        self._boxes = boxes
        self._crops = crops
        self._progress = progress
        self._names = Names()
        self._names.take("predictions", ".json")
        self._video: _Found | None = None
        self._done = 0
        self._total = _passes(frames) if progress else 0

    def counts(self, found: Detections) -> Detections:
        """Return the detections that are sure and of the classes that are hidden."""
        return self._of_classes(found.above(self._score))

    def _of_classes(self, found: Detections) -> Detections:
        labels = self._hiding.labels
        return found if labels is None else found.select(np.isin(found.labels, sorted(labels)))

    def add(self, frame: Frame, found: Detections | None) -> None:
        """Take the next image or frame of a video; None for a frame in which nothing was looked for."""
        if found is not None:
            sure = found.above(self._score)
            if self._crops:
                self._crops.save(frame, sure)
            entry = frame_entry(frame, sure, self._detector)
        if frame.frame_number is None and found is not None:
            self.finish_video()
            entry["written"] = self._hide_in_image(frame, self.counts(found))
        else:
            self._add_to_video(frame, found)
        if found is not None:
            self._pictures.add(entry)
        self._advance()

    def _add_to_video(self, frame: Frame, found: Detections | None) -> None:
        if self._video is None or self._video.path != frame.path:
            self.finish_video()
            self._video = _Found(frame, self._score)
        video = self._video
        video.cuts.add(video.count, frame.image_bgr)
        if found is not None:
            found = self._of_classes(found)
            turns = turns_of(found.keypoints, self._detector.family.keypoints)
            video.linker.add(video.count, found, turns, video.cuts.scene)
            video.with_points |= found.keypoints is not None
        video.count += 1

    def _hide_in_image(self, frame: Frame, found: Detections) -> str:
        size_hw = (frame.image_bgr.shape[0], frame.image_bgr.shape[1])
        turns = turns_of(found.keypoints, self._detector.family.keypoints)
        places = [
            Place(
                tuple(found.boxes_xyxy[i].tolist()), 0.0 if turns is None else float(turns[i]), "found", None,
                int(found.labels[i]), float(found.scores[i]),
            )
            for i in range(len(found)) if np.isfinite(found.boxes_xyxy[i]).all()
        ]  # fmt: skip
        places = self._within(places, None, size_hw)
        self._hide(frame.image_bgr, places, found.keypoints is not None)
        name = self._names.take(frame.path.stem, kept_suffix(frame.path))
        if self._hiding.metadata:
            write_with_metadata(self._out / name, frame.image_bgr, frame.path)
        else:
            write_image(self._out / name, frame.image_bgr)
        if self._boxes:
            self._boxes.add(frame.path, None, None, places)
        objects = Counter(place.label for place in places if place.label is not None)
        self._files.append({"file": str(frame.path), "written": name, "objects": self._named(objects)})
        return name

    def _named(self, objects: Counter[int]) -> dict[str, int]:
        return {self._detector.categories[label].name: number for label, number in objects.most_common()}

    def finish_video(self) -> None:
        """Write the video whose frames were taken, if there is one."""
        video, self._video = self._video, None
        if video is None:
            return
        copy = plan_copy(video.path)
        name = self._names.take(video.path.stem, copy.suffix)
        entry: dict[str, Any] = {
            "file": str(video.path), "written": name, "frames": video.count, "codec": copy.codec,
            "sound": copy.contents.sound, "notes": list(copy.notes),
        }  # fmt: skip
        try:
            with VideoCopy(
                video.path, self._out / name, copy, video.fps, video.size_hw, metadata=self._hiding.metadata
            ) as writer:
                entry |= self._hide_in_video(video, writer)
        except DataError as error:
            self._frames.failures.append(DataError(error.message, file=video.path, got=error.facts.get("got")))
        else:
            self._files.append(entry)

    def _hide_in_video(self, video: _Found, writer: VideoCopy) -> dict[str, Any]:
        """Write the frames and return what is to be said about them."""
        plan = plan_frames(video.linker.tracks, video.count, video.size_hw, video.fps, video.cuts.frames)
        tracks: dict[int, int] = {}
        undecided = _Spans()
        number = -1
        for number, ((seconds, image), planned) in enumerate(
            zip(timed_frames(video.path, video.count, video.fps), plan, strict=False)
        ):
            places = self._within(planned, seconds, video.size_hw)
            lost = any(place.reason == "lost" for place in places)
            if lost:
                undecided.add(number, seconds)
                if self._hiding.lost == "blur-all":
                    places = [Place((0, 0, *video.size_hw[::-1]), 0, "frame")]
            tracks |= {
                place.track: place.label for place in places if place.track is not None and place.label is not None
            }
            self._hide(image, places, video.with_points)
            writer.write(image, seconds)
            if self._boxes:
                self._boxes.add(video.path, number, seconds, places)
            self._advance()
        if number + 1 < video.count:
            raise DataError("the video changed while it was read", got=f"{number + 1} frames, then {video.count}")
        return {"objects": self._named(Counter(tracks.values())), "undecided": undecided.spans}

    def _within(self, places: Sequence[Place], seconds: float | None, size_hw: tuple[int, int]) -> list[Place]:
        """Return the places that regions and times allow, and those that they add."""
        areas = self._hiding.areas
        allowed = [place for place in places if areas.allow(place.box, seconds, size_hw)]
        return [*allowed, *(Place(box, 0, "area") for box in areas.forced(seconds, size_hw))]

    def _hide(self, image: Image, places: Sequence[Place], with_points: bool) -> None:
        outline = self._hiding.outline or ("ellipse" if with_points else "box")
        for place in places:
            if place.reason == "frame":
                hide(image, whole(image), self._hiding.how)
            elif place.reason == "area":
                hide(image, mask_over(place.box, 0, 1, "box"), self._hiding.how)
            else:
                hide(image, mask_over(place.box, place.turn, self._hiding.scale, outline), self._hiding.how)

    def _advance(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, max(self._total, self._done))


class _Spans:
    """Stretches of frames, as JSON has them: first and last frame, and their seconds."""

    def __init__(self) -> None:
        self.spans: list[dict[str, list[Any]]] = []

    def add(self, frame: int, seconds: float) -> None:
        if not self.spans or self.spans[-1]["frames"][1] != frame - 1:
            self.spans.append({"frames": [frame, frame], "seconds": [round(seconds, 3)] * 2})
        self.spans[-1]["frames"][1], self.spans[-1]["seconds"][1] = frame, round(seconds, 3)


def _passes(frames: Sources) -> int:
    """Return how many frames are taken up: those of videos twice."""
    counts = [replace(frames, files=(file,)).count_frames() for file in frames.files]
    return sum(2 * count if count > 1 else count for count in counts)
