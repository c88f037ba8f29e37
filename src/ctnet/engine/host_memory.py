"""How this process holds the memory that a training step frees."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the system. Returns whether the C library can.

    A step on a CPU frees its gradients and activations; handed back, every page of theirs is cleared and mapped
    again in the next step. The setting is the process's and lasts. Its peak stays that of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(_M_TRIM_THRESHOLD, -1) and mallopt(_M_MMAP_MAX, 0))
