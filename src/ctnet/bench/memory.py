"""Peak memory of a process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from ctnet.devices import OpenDevice

RESIDENT = "resident memory of a process that runs this alone"
ALLOCATED = "device memory that torch allocated"


class Memory(NamedTuple):
    """Bytes at the peak, how many of them came on top of what was there before, and what was counted."""

    peak: int
    growth: int
    kind: str


def peak_memory(device: OpenDevice, before: int) -> Memory | None:
    """Return the peak of this process so far: of the device where it counts, else of resident memory.

    `before` is `resident_bytes()` at an earlier time. None where the system does not report it.
    """
    allocated = device.plugin.peak_memory()
    if allocated is not None:
        return Memory(allocated, allocated, ALLOCATED)
    peak = _status("VmHWM") or _peak_of_usage()
    return None if peak is None else Memory(peak, max(0, peak - before), RESIDENT)


def resident_bytes() -> int:
    """Return the bytes of this process that are in memory now, 0 where the system does not report it."""
    return _status("VmRSS") or _peak_of_usage() or 0


def _status(field: str) -> int | None:
    """Return a field of /proc/self/status, which unlike `getrusage` starts at zero in a new process."""
    file = Path("/proc/self/status")
    if not file.is_file():
        return None
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0]) * 1024 if field in lines else None


def _peak_of_usage() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
