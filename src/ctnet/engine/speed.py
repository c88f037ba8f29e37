"""Training throughput, and the share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

# The first steps include allocation, caches and worker start; the reference implementations exclude them too.
WARMUP_STEPS = 5


class Speed:
    """Counts images and seconds; evaluation and saving do not count."""

    def __init__(self) -> None:
        self._steps = 0
        self._images = 0
        self._wait = 0.0
        self._pause = 0.0
        self._start = time.perf_counter()
        self._looked = (0, self._start, 0.0)
        self._warm = (0, 0, self._start, 0.0, 0.0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._wait += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time inside from all figures."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._pause += time.perf_counter() - start

    def step(self, images: int) -> None:
        """Count an update over this many images."""
        self._steps += 1
        self._images += images
        if self._steps == WARMUP_STEPS:
            self._warm = (self._steps, self._images, time.perf_counter(), self._pause, self._wait)

    def since_last_look(self) -> dict[str, float]:
        """Return `images_per_s` since the last call."""
        images, start, pause = self._looked
        now = time.perf_counter()
        seconds = now - start - (self._pause - pause)
        self._looked = (self._images, now, self._pause)
        return {"images_per_s": (self._images - images) / max(seconds, 1e-9)}

    def overall(self) -> dict[str, float]:
        """Return `images_per_s`, `ms_per_step` and `data_wait` (part of the time, 0..1) after the warm-up."""
        steps, images, start, pause, wait = self._warm
        seconds = max(time.perf_counter() - start - (self._pause - pause), 1e-9)
        taken = self._steps - steps
        return {
            "images_per_s": (self._images - images) / seconds,
            "ms_per_step": 1000 * seconds / taken if taken else 0.0,
            "data_wait": min(1.0, (self._wait - wait) / seconds),
        }
