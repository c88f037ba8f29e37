"""Which frames of a video are shown to the detector when not all of them are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ctnet.predict.anonymize.linking import iou
from ctnet.predict.sources import Frame
from ctnet.types import Detections

_SAME = 0.3


class Sampler:
    """Detects in every `every`-th frame of a video, and in those between two of them that show different objects.

    `relevant` gives of the detections of a frame those that count. Images are all shown to the detector.
    """

    def __init__(
        self,
        detect: Callable[[Sequence[Frame]], list[Detections]],
        every: int,
        relevant: Callable[[Detections], Detections],
    ) -> None:
        self._detect = detect
        self._every = every
        self._relevant = relevant
        self._before: tuple[Path, Detections] | None = None

    def results(self, batch: Sequence[Frame]) -> list[Detections | None]:
        """Return the detections of each frame of the next batch of a stream, None for frames that were left out."""
        found: list[Detections | None] = [None] * len(batch)
        self._fill(batch, found, [i for i, frame in enumerate(batch) if self._chosen(batch, i, frame)])
        between: list[int] = []
        waiting: list[int] = []
        for i, (frame, result) in enumerate(zip(batch, found, strict=True)):
            if result is None:
                waiting.append(i)
                continue
            known = self._before is not None and self._before[0] == frame.path
            if waiting and not (known and self._before and _alike(self._before[1], self._relevant(result))):
                between += waiting
            waiting = []
            self._before = frame.path, self._relevant(result)
        self._fill(batch, found, between)
        return found

    def _chosen(self, batch: Sequence[Frame], i: int, frame: Frame) -> bool:
        last = i + 1 == len(batch) or batch[i + 1].path != frame.path
        return frame.frame_number is None or frame.frame_number % self._every == 0 or last

    def _fill(self, batch: Sequence[Frame], found: list[Detections | None], indices: list[int]) -> None:
        if indices:
            for i, result in zip(indices, self._detect([batch[i] for i in indices]), strict=True):
                found[i] = result


def _alike(ones: Detections, others: Detections) -> bool:
    """Return whether two frames show the same number of objects, each near one of its class in the other frame."""
    if len(ones) != len(others):
        return False
    if not len(ones):
        return True
    overlaps = iou(ones.boxes_xyxy.astype(np.float64), others.boxes_xyxy.astype(np.float64))
    overlaps[ones.labels[:, None] != others.labels[None, :]] = 0
    best = overlaps.argmax(1)
    return bool((overlaps.max(1) >= _SAME).all()) and len(set(best.tolist())) == len(best)
