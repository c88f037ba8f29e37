"""Objects in separate processes, which share neither memory, threads nor crashes with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from ctnet.errors import BenchError, CtnetError


class Remote:
    """An object in another process, whose methods are called by name.

    What it writes to stdout goes to stderr. Calls raise the CtnetError that the object raised, and BenchError for any
    other error and for a process that died.
    """

    def __init__(self, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        serving = (theirs, torch.get_num_threads(), make, arguments)
        self._process = context.Process(target=_serve, args=serving, daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._receive()
        except CtnetError:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Return the result of the method."""
        try:
            self._pipe.send((method, arguments))
        except OSError:
            raise self._died() from None
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> Any:
        try:
            result, error = self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if error is not None:
            raise error
        return result

    def _died(self) -> BenchError:
        self._process.join()
        code = self._process.exitcode or 0
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "the system ends processes so when memory runs out" if reason.endswith("SIGKILL") else None
        return BenchError(f"its process ended with {reason}", hint=hint)


def unexpected(error: Exception) -> BenchError:
    """Return any error as a BenchError: its class and its first line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return BenchError(f"{type(error).__name__}: {first[:300]}")


def _serve(pipe: Connection, threads: int, make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Make the object, then answer calls with (result, error) until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    sys.stdout.flush()
    os.dup2(2, 1)
    torch.set_num_threads(threads)
    made: object = None

    def answer(call: Callable[[], object]) -> None:
        try:
            pipe.send((call(), None))
        except CtnetError as error:
            pipe.send((None, error))
        except Exception as error:  # runtimes raise classes that the parent may not even know
            pipe.send((None, unexpected(error)))

    def create() -> None:
        nonlocal made
        made = make(*arguments)

    answer(create)
    while made is not None:
        try:
            method, values = pipe.recv()
        except EOFError:
            return
        answer(lambda: getattr(made, method)(*values))  # noqa: B023
