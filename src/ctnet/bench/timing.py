"""Timing of calls: an untimed warm-up, then iterations in rounds in which all take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

PAUSE_S = 0.1
"""pause before each block: threads of some runtimes keep spinning for a while after a call"""

T = TypeVar("T")


@dataclass(frozen=True)
class Iterations:
    """How often a call is run: `warmup` times untimed, then `timed` times, dealt out over `rounds`."""

    warmup: int = 3
    timed: int = 20
    rounds: int = 4

    def shares(self) -> list[int]:
        """Return the timed runs of each round, all above 0."""
        rounds = min(self.rounds, self.timed)
        return [len(range(i, self.timed, rounds)) for i in range(rounds)]


class Latency(NamedTuple):
    """Median and 90th and 99th percentile in milliseconds, interpolated."""

    median: float
    p90: float
    p99: float


def latency(seconds: Sequence[float]) -> Latency:
    """Return the percentiles of some durations, in milliseconds."""
    return Latency(*(1e3 * float(value) for value in np.percentile(seconds, [50, 90, 99])))


def take_turns(blocks: Mapping[str, Callable[[int], list[T]]], iterations: Iterations) -> dict[str, list[T]]:
    """Return what each block measured, called as `block(runs)` once a round.

    They take turns, so that a slow phase of the machine affects all of them.
    """
    found: dict[str, list[T]] = {name: [] for name in blocks}
    for runs in iterations.shares():
        for name, block in blocks.items():
            time.sleep(PAUSE_S)
            found[name] += block(runs)
    return found


def durations(call: Callable[[], object], runs: int) -> list[float]:
    """Return the seconds of each of `runs` calls, after an untimed one."""
    call()
    return [stage_seconds([lambda _: call()])[0] for _ in range(runs)]


def stage_seconds(
    stages: Sequence[Callable[[Any], Any]], synchronize: Callable[[], None] = lambda: None
) -> tuple[float, ...]:
    """Run the stages, each on what the one before returned, and return the seconds of each.

    `synchronize` waits for work that a stage has only handed to a device.
    """
    value: Any = None
    times = []
    for stage in stages:
        start = time.perf_counter()
        value = stage(value)
        synchronize()
        times.append(time.perf_counter() - start)
    return tuple(times)
