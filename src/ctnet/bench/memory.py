"""Peak memory of a process."""

from __future__ import annotations

from typing import NamedTuple

from ctnet.devices import OpenDevice
from ctnet.engine.host_memory import peak_resident_bytes, resident_bytes

__all__ = ["ALLOCATED", "RESIDENT", "Memory", "peak_memory", "resident_bytes"]

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
    peak = peak_resident_bytes()
    return None if peak is None else Memory(peak, max(0, peak - before), RESIDENT)
