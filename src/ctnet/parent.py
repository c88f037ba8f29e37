"""End a process when its parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_S = 1.0


def end_with_parent(parent: int, *, at_once: bool = False) -> None:
    """Kill this process when its parent, the process `parent`, has ended for any reason.

    It looks every second. `at_once` asks Linux for a signal as well, which reaches a process that hangs; it comes when
    the parent's thread that started this process ends, and is therefore for children of a main thread.
    """
    if os.name != "posix":  # a process keeps its dead parent's number elsewhere
        return
    if at_once and sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="ctnet-parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)
