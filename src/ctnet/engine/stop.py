"""Ctrl-C and SIGTERM as a request to finish the step, save and leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopped(Exception):
    """Training stopped on request."""


class StopRequest:
    """While entered, remembers the first SIGINT or SIGTERM in `number`, else 0; a second one interrupts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._ending = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items() if not self._ending else ():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number = number
        elif not self._ending:
            self._ending = True
            for further in self._previous:  # ignored to the end, so that the process can report what is saved
                signal.signal(further, signal.SIG_IGN)
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise Stopped after a stop request."""
        if self.number:
            raise Stopped
