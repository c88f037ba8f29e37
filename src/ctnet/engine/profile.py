"""A profiler trace of a few steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet.devices import Device
from ctnet.engine.report import Reporter


@dataclass(frozen=True)
class ProfilePlan:
    """Which steps of a run to record, counted from 1, and where; by default into `profile/` of the run folder."""

    first: int = 5
    last: int = 8
    folder: Path | None = None


class StepProfiler:
    """Records the steps of a plan by the profiler of the device; does nothing without a plan."""

    def __init__(self, plan: ProfilePlan | None, run: Path, device: Device) -> None:
        self._plan = plan
        self._profiler: Any = None
        if plan is not None:
            self._folder = plan.folder or run / "profile"
            self._folder.mkdir(parents=True, exist_ok=True)
            warmup = min(1, plan.first - 1)
            self._profiler = device.profiler(self._folder, plan.first - 1 - warmup, warmup, plan.last - plan.first + 1)
            self._profiler.start()

    def step(self) -> None:
        """Count a training step."""
        if self._profiler is not None:
            self._profiler.step()

    def close(self, reporter: Reporter) -> None:
        """Stop and report where the trace is, or that the run was too short for one."""
        if self._plan is None:
            return
        self._profiler.stop()
        trace = next((path for path in sorted(self._folder.iterdir()) if path.name != "operators.txt"), None)
        reporter.message(f"profile: {trace}" if trace else f"no profile: it takes {self._plan.last} steps")
