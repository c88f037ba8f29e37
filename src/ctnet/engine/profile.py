"""A torch profiler trace of a few steps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from ctnet.engine.report import Reporter

# Steps left alone, steps to warm the profiler up, steps recorded.
_WAIT, _WARM, _RECORDED = 3, 1, 4


def _activities() -> set[ProfilerActivity]:
    found: set[ProfilerActivity] = supported_activities()  # type: ignore[no-untyped-call]
    return found


class StepProfiler:
    """Writes `trace.json` (chrome://tracing, Perfetto) and `operators.txt`; does nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._profiler: profile | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._profiler = profile(
                activities=_activities(),
                schedule=schedule(wait=_WAIT, warmup=_WARM, active=_RECORDED, repeat=1),
                on_trace_ready=self._write,
                record_shapes=True,
            )
            self._profiler.start()

    def step(self) -> None:
        """Count a training step."""
        if self._profiler is not None:
            self._profiler.step()

    def _write(self, profiler: torch.profiler.profile) -> None:
        assert self._folder is not None
        profiler.export_chrome_trace(str(self._folder / "trace.json"))
        table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        (self._folder / "operators.txt").write_text(table, encoding="utf-8")

    def close(self, reporter: Reporter) -> None:
        """Stop and report where the trace is, or that the run was too short for one."""
        if self._profiler is None:
            return
        self._profiler.stop()
        assert self._folder is not None
        trace = self._folder / "trace.json"
        steps = _WAIT + _WARM + _RECORDED
        reporter.message(f"profile: {trace}" if trace.exists() else f"no profile: it takes {steps} steps")
