"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ctnet.cli.console import progress


class Show(Protocol):
    """Moves the bar; a total not known at the start may come with any call."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Tell how many are done."""


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Show]:
    """Yield a function that is told how many of `total` are done; it shows nothing unless on a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with progress(*columns) as bar:
        task = bar.add_task(description, total=total)

        def show(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)

        yield show
