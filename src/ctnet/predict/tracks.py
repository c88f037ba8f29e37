"""Ids that objects keep from frame to frame of a video: ByteTrack (Zhang et al., 2022), by the package trackers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from ctnet.errors import MissingExtra
from ctnet.types import Detections

LOWEST = 0.1
"""score from which detections continue a track, though none begins with them (section 3 of the paper)"""


class Tracks:
    """The tracks of one video; objects of different classes never share one.

    A track begins with a detection of at least `score`. Raises MissingExtra without the package.
    """

    def __init__(self, fps: float, score: float) -> None:
        make = _tracker()
        self._trackers: dict[int, Any] = defaultdict(
            lambda: make(
                frame_rate=fps, track_activation_threshold=score, high_conf_det_threshold=score,
                minimum_consecutive_frames=1,
            )
        )  # fmt: skip
        self._ids: dict[tuple[int, int], int] = {}

    def update(self, found: Detections) -> list[int | None]:
        """Return the id of each detection of the next frame, None where none is known yet."""
        import supervision

        ids: list[int | None] = [None] * len(found)
        for label in sorted({*found.labels.tolist(), *self._trackers}):
            mine = np.flatnonzero(found.labels == label)
            tracked = self._trackers[label].update(
                supervision.Detections(
                    found.boxes_xyxy[mine].reshape(-1, 4), confidence=found.scores[mine], data={"position": mine}
                )
            )
            positions = tracked.data.get("position", ())
            for position, number in zip(positions, tracked.tracker_id, strict=True):
                if number >= 0:
                    ids[position] = self._ids.setdefault((label, int(number)), len(self._ids) + 1)
        return ids


def _tracker() -> Callable[..., Any]:
    try:
        from trackers import ByteTrackTracker
    except ImportError:
        raise MissingExtra("the package trackers is not installed", hint='pip install "ctnet-toolkit[track]"') from None
    return ByteTrackTracker  # type: ignore[no-any-return]


def require_trackers() -> None:
    """Raise MissingExtra where objects cannot be tracked."""
    _tracker()
