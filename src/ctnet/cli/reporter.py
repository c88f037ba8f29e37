"""Training's progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleReporter:
    """Shows the progress of a run."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self._console,
                transient=True,
            )

    def __enter__(self) -> ConsoleReporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """Print a line."""
        style = "yellow" if text.startswith("warning:") else ""
        self._console.print(escape(text), style=style)

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Move the bar of a task, or print a line if the last one is some seconds old."""
        shown = "  ".join(f"{name} {value}" for name, value in values.items())
        if self._bar is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bar.add_task(task, total=total, shown="")
            visible = task == "train" or done < total
            self._bar.update(self._tasks[task], completed=done, total=total, visible=visible, shown=shown)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or (done == total and task == "train"):
            self._last_line = now
            self._console.print(escape(f"{task} {done}/{total}  {shown}".rstrip()))
