"""Torch's profiler with the files that it leaves."""

from __future__ import annotations

from pathlib import Path

from torch.profiler import profile, schedule, supported_activities


def torch_profiler(folder: Path, wait: int, warmup: int, recorded: int) -> profile:
    """Return a profiler that writes `trace.json` and `operators.txt` once it has recorded its steps."""

    def write(found: profile) -> None:
        found.export_chrome_trace(str(folder / "trace.json"))
        table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        (folder / "operators.txt").write_text(table, encoding="utf-8")

    return profile(
        activities=supported_activities(),  # type: ignore[no-untyped-call]
        schedule=schedule(wait=wait, warmup=warmup, active=recorded, repeat=1),
        on_trace_ready=write,
        record_shapes=True,
    )
