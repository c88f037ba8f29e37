"""Training's progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ctnet.cli.console import Terminal, progress
from ctnet.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

_SECONDS_BETWEEN_LINES = 10.0
_WIDE = 100  # columns from which on the bar is long
_TIME = len("00:00:00")


class ConsoleReporter:
    """Shows the progress of a run."""

    def __init__(self) -> None:
        self._console: Console = Terminal(stderr=True)
        self._open = ExitStack()
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, list[str]] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._last_line = time.monotonic()
        self._bars: Progress | None = None

    def __enter__(self) -> ConsoleReporter:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            bar = 24 if self._console.width >= _WIDE else 8
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=bar),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                _Values(self._console, bar),
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
        """Move the bar of a task, or print a line if the last one is some seconds old; no values keep the last."""
        if values or task not in self._shown:
            self._shown[task] = [printable(f"{name} {value}") for name, value in values.items()]
        shown = self._shown[task]
        if self._bars is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, values=shown)
            visible = task == "train" or done < total
            self._bars.update(self._tasks[task], completed=done, total=total, visible=visible, values=shown)
            return
        now = time.monotonic()
        began, first = self._began.setdefault(task, (now, done))
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or (done == total and task == "train"):
            self._last_line = now
            left = [f"{_clock((now - began) / (done - first) * (total - done))} left"] if first < done < total else []
            self._console.print("  ".join([f"{task} {done}/{total}", *left, *shown]))
        if done == total:
            del self._began[task]


class _Values(ProgressColumn):
    """The values of a task that fit beside the other columns, the first of them first."""

    def __init__(self, console: Console, bar: int) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._console, self._bar = console, bar

    def render(self, task: Task) -> Text:
        """Return whole values only: half a number would be another number."""
        count = 2 * len(str(int(task.total or 0))) + 1
        room = self._console.width - len(task.description) - self._bar - count - _TIME - 5
        fitting = ""
        for value in task.fields["values"]:
            longer = f"{fitting}  {value}" if fitting else value
            if len(longer) > room:
                break
            fitting = longer
        return Text(fitting)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
