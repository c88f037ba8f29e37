"""Detections of a video's frames joined into tracks, by buffered IoU (Yang et al., C-BIoU, 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctnet.types import Detections, Float32

Float64 = NDArray[np.float64]

GAP_S = 2.0
"""seconds for which an object may be unseen and still be the same one"""
_FLASH_S = 0.2
"""the same, where a scene began meanwhile: a flash of light looks like two cuts"""
_BUFFER, _BUFFER_LATER = 0.3, 0.7
_LEAST_IOU = 0.15
_FORESEEN_S = 0.25
"""seconds for which a motion is assumed to go on"""


@dataclass
class Track:
    """Where one object was found: the number, box, turn and score of each frame in which it was."""

    label: int
    frames: list[int] = field(default_factory=list)
    boxes: list[Float32] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    motion: Float64 = field(default_factory=lambda: np.zeros(2))
    """pixels a frame, of the centre"""

    def add(self, frame: int, box: Float32, turn: float, score: float) -> None:
        """Add the object's place in a later frame."""
        if self.frames:
            moved = _centre(box) - _centre(self.boxes[-1])
            self.motion = 0.5 * self.motion + 0.5 * moved / (frame - self.frames[-1])
        self.frames.append(frame)
        self.boxes.append(box)
        self.turns.append(turn)
        self.scores.append(score)


class Linker:
    """Joins detections frame by frame.

    A track begins with a detection of at least `score`; weaker ones, down to half of it, continue tracks, so that an
    object whose score sways does not vanish.
    """

    def __init__(self, fps: float, score: float) -> None:
        self.tracks: list[Track] = []
        self._live: list[Track] = []
        self._fps = fps
        self._score = score

    def add(self, frame: int, found: Detections, turns: Float32 | None, scene: int = 0) -> None:
        """Add the detections of a frame of the scene that began with frame `scene`.

        Frames come in rising order and may be left out.
        """
        self._live = [
            track
            for track in self._live
            if frame - track.frames[-1] <= self._fps * (GAP_S if track.frames[-1] >= scene else _FLASH_S)
        ]
        boxes = found.boxes_xyxy
        usable = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1) if len(found) else np.zeros(0, bool)
        strong = usable & (found.scores >= self._score)
        waiting, begun = self._live, set[int]()
        for candidates in (strong, usable & ~strong & (found.scores >= self._score / 2)):
            indices = np.flatnonzero(candidates)
            pairs = self._pairs(frame, waiting, found, indices)
            for track, i in pairs:
                track.add(frame, boxes[i], 0.0 if turns is None else float(turns[i]), float(found.scores[i]))
            matched = {id(track) for track, _ in pairs}
            waiting = [track for track in waiting if id(track) not in matched]
            if candidates is strong:
                begun = set(indices.tolist()) - {i for _, i in pairs}
        for i in sorted(begun):
            track = Track(int(found.labels[i]))
            track.add(frame, boxes[i], 0.0 if turns is None else float(turns[i]), float(found.scores[i]))
            self.tracks.append(track)
            self._live.append(track)

    def _pairs(
        self, frame: int, tracks: list[Track], found: Detections, indices: NDArray[np.intp]
    ) -> list[tuple[Track, int]]:
        """Return tracks with the detections that continue them, those that overlap most first, each once."""
        if not tracks or not len(indices):
            return []
        ages = np.array([frame - track.frames[-1] for track in tracks], np.float64)
        steps = np.minimum(ages, max(_FORESEEN_S * self._fps, 1))
        moved = np.stack([track.motion for track in tracks]) * steps[:, None]
        expected = np.stack([track.boxes[-1] for track in tracks]).astype(np.float64) + np.tile(moved, 2)
        buffer = _BUFFER + _BUFFER_LATER * np.minimum((ages - 1) / self._fps, 1)
        overlaps = iou(_grown(expected, buffer), found.boxes_xyxy[indices].astype(np.float64), buffer)
        labels = np.array([track.label for track in tracks])
        overlaps[labels[:, None] != found.labels[indices][None, :]] = 0
        rows, columns = np.nonzero(overlaps >= _LEAST_IOU)
        pairs, used = [], set()
        for k in np.argsort(-overlaps[rows, columns], kind="stable"):
            row, column = int(rows[k]), int(columns[k])
            if ("track", row) not in used and ("found", column) not in used:
                used |= {("track", row), ("found", column)}
                pairs.append((tracks[row], int(indices[column])))
        return pairs


def iou(ones: Float64, others: Float64, buffer: Float64 | None = None) -> Float64:
    """Return the intersection over union (N,M) of boxes (N,4) and (M,4); with `buffer` (N,) the others are grown."""
    right = others[None] if buffer is None else _grown(others[None], buffer[:, None])
    left = ones[:, None]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    union = (left[..., 2:] - left[..., :2]).prod(-1) + (right[..., 2:] - right[..., :2]).prod(-1) - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def _grown(boxes: Float64, by: Float64) -> Float64:
    """Return boxes whose sides move outwards by this part of width and height."""
    margin = np.asarray(by)[..., None] * (boxes[..., 2:] - boxes[..., :2])
    return np.concatenate([boxes[..., :2] - margin, boxes[..., 2:] + margin], -1)


def _centre(box: Float32) -> Float64:
    return np.asarray((box[:2].astype(np.float64) + box[2:]) / 2)
