"""What is hidden in each frame of a video: tracks without gaps, smooth, and longer than they were seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctnet.predict.anonymize.linking import Float64, Track, iou
from ctnet.predict.anonymize.masks import Box

Reason = Literal["found", "filled", "held", "lost", "area", "frame"]
"""`found` in the frame; `filled` between two frames; `held` where a track leaves or enters the image; `lost` where it
begins or ends within the image, so that nobody knows whether the object is there"""

UNSURE_S = 1.0
"""seconds before and after a track for which the object may have been there unseen"""
_EDGE_S = 0.2
_SMOOTH_S = 0.1
_GROWTH = 0.5
"""part of its size by which a mask grows within a second without a detection"""
_SAME_PLACE = 0.3
_CUT = 40.0
_THUMBNAIL = 8


class Place(NamedTuple):
    """Where one object is hidden in a frame; `score` is that of the detection, if it was found there."""

    box: Box
    turn: float
    reason: Reason
    track: int | None = None
    label: int | None = None
    score: float | None = None


class Cuts:
    """The frames with which scenes begin, from the mean change of brightness at a few places."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self._before: NDArray[np.int16] | None = None

    @property
    def scene(self) -> int:
        """The frame with which the scene of the last frame began."""
        return self.frames[-1] if self.frames else 0

    def add(self, frame: int, image_bgr: NDArray[np.uint8]) -> None:
        """Look at the next frame."""
        step = [max(side // (2 * _THUMBNAIL), 1) for side in image_bgr.shape[:2]]
        now = image_bgr[step[0] // 2 :: step[0], step[1] // 2 :: step[1]].astype(np.int16)
        if self._before is not None and (
            now.shape != self._before.shape or float(np.abs(now - self._before).mean()) > _CUT
        ):
            self.frames.append(frame)
        self._before = now


@dataclass(frozen=True)
class _Path:
    """A track as it is hidden: a row for each frame from `first` on. `seen` is the range of frames between its ends."""

    number: int
    label: int
    first: int
    boxes: Float64
    turns: Float64
    reasons: list[Reason]
    scores: dict[int, float]
    seen: tuple[int, int]

    def at(self, frame: int) -> Place:
        i = frame - self.first
        x1, y1, x2, y2 = self.boxes[i].tolist()
        turn = float(self.turns[i])
        return Place((x1, y1, x2, y2), turn, self.reasons[i], self.number, self.label, self.scores.get(frame))


_TakenOver = Callable[[_Path, int, Float64], bool]


def plan_frames(
    tracks: Sequence[Track], count: int, size_hw: tuple[int, int], fps: float, cuts: Sequence[int] = ()
) -> Iterator[list[Place]]:
    """Yield what is hidden in each of `count` frames, from 0; `cuts` are the frames that begin scenes."""
    filled = [_fill(number, track, fps) for number, track in enumerate(tracks)]
    paths = _extended(filled, tracks, count, size_hw, fps, cuts)
    waiting = sorted(paths, key=lambda path: path.first, reverse=True)
    live: list[_Path] = []
    for frame in range(count):
        live = [path for path in live if frame < path.first + len(path.boxes)]
        while waiting and waiting[-1].first <= frame:
            live.append(waiting.pop())
        yield [path.at(frame) for path in live]


def _fill(number: int, track: Track, fps: float) -> _Path:
    """Return the track with a place in every frame between its first and its last."""
    known = np.array(track.frames)
    frames = np.arange(known[0], known[-1] + 1)
    doubled = np.radians(2 * np.array(track.turns))  # a turn by half a circle is none
    columns = [*np.stack(track.boxes).astype(np.float64).T, np.cos(doubled), np.sin(doubled)]
    raw = np.stack([np.interp(frames, known, column) for column in columns], 1)
    smooth = _smoothed(raw, max(round(_SMOOTH_S * fps), 1))
    boxes = np.hstack([np.minimum(raw[:, :2], smooth[:, :2]), np.maximum(raw[:, 2:4], smooth[:, 2:4])])
    after = np.clip(np.searchsorted(known, frames), 0, len(known) - 1)
    away = np.minimum(np.abs(known[after] - frames), np.abs(frames - known[np.maximum(after - 1, 0)]))
    there = set(track.frames)
    return _Path(
        number, track.label, int(known[0]), _grown(boxes, away / fps),
        np.degrees(np.arctan2(smooth[:, 5], smooth[:, 4])) / 2,
        ["found" if frame in there else "filled" for frame in frames.tolist()],
        dict(zip(track.frames, track.scores, strict=True)), (int(known[0]), int(known[-1])),
    )  # fmt: skip


def _smoothed(rows: Float64, radius: int) -> Float64:
    """Return rows averaged with their neighbours under a triangle; ends go on as they came, so none lags behind."""
    radius = min(radius, len(rows) - 1)
    if radius < 1:
        return rows
    before, after = 2 * rows[:1] - rows[radius:0:-1], 2 * rows[-1:] - rows[-2 : -radius - 2 : -1]
    padded = np.concatenate([before, rows, after])
    weights = radius + 1 - np.abs(np.arange(-radius, radius + 1))
    return np.stack([np.convolve(column, weights / weights.sum(), "valid") for column in padded.T], 1)


def _grown(boxes: Float64, seconds: Float64) -> Float64:
    """Return boxes larger by the time since something was found."""
    margin = 0.5 * _GROWTH * np.minimum(seconds, 1)[:, None] * (boxes[:, 2:] - boxes[:, :2])
    return np.hstack([boxes[:, :2] - margin, boxes[:, 2:] + margin])


def _extended(
    paths: list[_Path], tracks: Sequence[Track], count: int, size_hw: tuple[int, int], fps: float, cuts: Sequence[int]
) -> list[_Path]:
    """Return the paths with places before their beginnings and behind their ends, within their scenes."""
    if not paths:
        return []
    bounds = np.array([0, *cuts, count])
    firsts, lasts = np.array([path.seen for path in paths]).T
    labels = np.array([path.label for path in paths])

    def taken_over(path: _Path, frame: int, box: Float64) -> bool:
        """Return whether another track is at the same place in the frame."""
        others = np.flatnonzero((firsts <= frame) & (lasts >= frame) & (labels == path.label))
        there = [paths[i].boxes[frame - paths[i].first] for i in others if paths[i] is not path]
        return bool(there) and float(iou(box[None], np.stack(there)).max()) >= _SAME_PLACE

    extended = []
    for path, track in zip(paths, tracks, strict=True):
        scene = np.searchsorted(bounds, path.seen, side="right")
        before = _end(path, len(track.frames), -1, path.first - int(bounds[scene[0] - 1]), size_hw, fps, taken_over)
        after = _end(path, len(track.frames), 1, int(bounds[scene[1]]) - 1 - path.seen[1], size_hw, fps, taken_over)
        extended.append(
            _Path(
                path.number, path.label, path.first - len(before[0]),
                np.concatenate([before[0][::-1], path.boxes, after[0]]),
                np.pad(path.turns, (len(before[0]), len(after[0])), "edge"),
                [*[before[1]] * len(before[0]), *path.reasons, *[after[1]] * len(after[0])],
                path.scores, path.seen,
            )
        )  # fmt: skip
    return extended


def _end(
    path: _Path, times_found: int, step: int, room: int, size_hw: tuple[int, int], fps: float, taken_over: _TakenOver
) -> tuple[Float64, Reason]:
    """Return places beyond one end of a path (`step` 1 behind it, -1 before it), nearest first, and their reason.

    At most `room` frames of the scene are left there. An object is held no longer than it was found, so that a single
    wrong detection stays short.
    """
    ordered = path.boxes[::step]
    box, back = ordered[-1], ordered[-min(6, len(ordered))]
    motion = (box - back) / max(min(6, len(ordered)) - 1, 1)
    edge = max(round(_EDGE_S * fps), 1)
    ahead = box + motion * edge
    height, width = size_hw
    margin = 0.05 * (box[2:] - box[:2])
    outside = min((ahead[:2] - margin).min(), (box[:2] - margin).min()) <= 0 or any(
        (one[2:] + margin >= (width, height)).any() for one in (ahead, box)
    )
    frame = path.seen[1] + 1 if step > 0 else path.seen[0] - 1
    reason: Reason = "held" if room <= 0 or outside or taken_over(path, frame, box) else "lost"
    longest = edge if reason == "held" else max(round(UNSURE_S * fps), 1)
    length = max(min(longest, times_found, room), 0)
    steps = np.arange(1, length + 1)
    places = box + (motion if outside else 0 * motion) * steps[:, None]
    return _grown(places.reshape(-1, 4), steps / fps), reason
