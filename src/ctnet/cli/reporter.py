"""Training's progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from ctnet.cli.console import Terminal, progress
from ctnet.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleReporter:
    """Shows the progress of a run."""

    def __init__(self) -> None:
        self._console: Console = Terminal(stderr=True)
        self._open = ExitStack()
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._bars: Progress | None = None

    def __enter__(self) -> ConsoleReporter:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}", markup=False),
            )
            self._bars = self._open.enter_context(progress(*columns))
            self._console = self._bars.console
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def message(self, text: str) -> None:
        """Print a line."""
        style = "yellow" if text.startswith("warning:") else ""
        self._console.print(text, style=style)

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Move the bar of a task, or print a line if the last one is some seconds old."""
        shown = "  ".join(printable(f"{name} {value}") for name, value in values.items())
        if self._bars is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, shown="")
            visible = task == "train" or done < total
            self._bars.update(self._tasks[task], completed=done, total=total, visible=visible, shown=shown)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or (done == total and task == "train"):
            self._last_line = now
            self._console.print(f"{task} {done}/{total}  {shown}".rstrip())
