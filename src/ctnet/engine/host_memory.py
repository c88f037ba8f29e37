"""The memory of this process: how much it held at most, and what becomes of what a training step frees."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from ctnet.devices import OpenDevice

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the system. Returns whether the C library can.

    A step on a CPU frees its gradients and activations; handed back, every page of theirs is cleared and mapped
    again in the next step. The setting is the process's and lasts. Its peak stays that of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(_M_TRIM_THRESHOLD, -1) and mallopt(_M_MMAP_MAX, 0))


def peak_memory(device: OpenDevice) -> int | None:
    """Return the most bytes held on the device, on a CPU by this process; None where that is unknown."""
    allocated = device.plugin.peak_memory()
    return peak_resident_bytes() if allocated is None and device.torch_device.type == "cpu" else allocated


def peak_resident_bytes() -> int | None:
    """Return the most bytes of this process that were in memory, None where the system does not report it."""
    return _status("VmHWM") or _peak_of_usage()


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
