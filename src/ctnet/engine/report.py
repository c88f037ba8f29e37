"""What training tells people (a reporter) and programs (files in the run folder)."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ctnet.distribution import install_command
from ctnet.files import write_file, writing

METRIC_COLUMNS = (
    "epoch", "step", "lr", "loss", "heatmap", "size", "offset", "giou", "images_per_s", "data_wait",
    "AP", "AP50", "AP75", "APs", "APm", "APl", "wall_s",
)  # fmt: skip


class Reporter(Protocol):
    """Someone watching: a terminal, a log, a test."""

    def message(self, text: str) -> None:
        """Tell something once."""

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Tell how far a task (`train`, `evaluate`) is, with its latest values."""


class Silence:
    """A reporter that tells nobody: that of every rank but 0."""

    def message(self, text: str) -> None:
        """Tell nobody."""

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Tell nobody."""


class Log(Protocol):
    """Where numbers of a run go."""

    def event(self, kind: str, **values: Any) -> None:
        """Record that something happened."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add numbers to the curves `group/name`."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Record an epoch's numbers; a later row of the same epoch replaces the earlier."""

    def close(self) -> None:
        """Flush and close."""


class NoLog:
    """A log that keeps nothing: that of every rank but 0."""

    def event(self, kind: str, **values: Any) -> None:
        """Keep nothing."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Keep nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Do nothing."""


class RunLog:
    """`log.jsonl`, `metrics.csv` and TensorBoard events of a run folder.

    After a resume, rows of steps that will be taken again are dropped from the csv; the log keeps everything.
    """

    def __init__(self, folder: Path, start_step: int, reporter: Reporter) -> None:
        self._csv = folder / "metrics.csv"
        self._rows = [row for row in _read_rows(self._csv) if int(row["step"]) <= start_step]
        self._log = folder / "log.jsonl"
        with writing(self._log):
            self._events = self._log.open("a", encoding="utf-8")
        self._board = _open_board(folder / "tensorboard", start_step)
        if self._board is None:
            reporter.message(f"no TensorBoard events: {install_command('tensorboard')} adds them")

    def event(self, kind: str, **values: Any) -> None:
        """Append one record to `log.jsonl`."""
        record = {"event": kind, "time": round(time.time(), 3), **values}
        with writing(self._log):
            self._events.write(json.dumps(record) + "\n")
            self._events.flush()

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add numbers to the TensorBoard curves `group/name`."""
        for name, value in values.items() if self._board is not None else ():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add a row to `metrics.csv`; a later row of the same epoch replaces the earlier."""
        self._rows = [r for r in self._rows if str(r["epoch"]) != str(row["epoch"])]
        self._rows.append({name: _short(row.get(name)) for name in METRIC_COLUMNS})
        text = io.StringIO()
        writer = csv.DictWriter(text, METRIC_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_file(self._csv, text.getvalue().encode())

    def close(self) -> None:
        """Flush and close all files."""
        with writing(self._log):
            self._events.flush()
            os.fsync(self._events.fileno())
            self._events.close()
        if self._board is not None:
            self._board.close()


def _open_board(folder: Path, start_step: int) -> Any:
    """Return a TensorBoard writer that forgets what came after `start_step`, or None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=start_step or None)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
