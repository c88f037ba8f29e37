"""Training output: a reporter for people, files in the run folder for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ctnet.distribution import install_command
from ctnet.engine.record import Record
from ctnet.errors import DataError
from ctnet.files import read_file, write_file, writing
from ctnet.limits import TEXT_BYTES


class Reporter(Protocol):
    """Receives messages and progress: a terminal, a log, a test."""

    def message(self, text: str) -> None:
        """Report a message."""

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Report the progress of a task (`train`, `evaluate`); without values the latest ones remain."""


class Silence:
    """A reporter without output, for every rank but 0."""

    def message(self, text: str) -> None:
        """Do nothing."""

    def progress(self, task: str, done: int, total: int, values: Mapping[str, str]) -> None:
        """Do nothing."""


class Log(Protocol):
    """Records the numbers of a run."""

    def event(self, kind: str, **values: Any) -> None:
        """Record that something happened."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add numbers to the curves `group/name`."""

    def epochs(self) -> None:
        """Write the rows of all epochs."""

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the files that grow, all of them on the disk."""

    def close(self) -> None:
        """Flush and close."""


class NoLog:
    """A log without output, for every rank but 0."""

    def event(self, kind: str, **values: Any) -> None:
        """Do nothing."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def epochs(self) -> None:
        """Do nothing."""

    def sizes(self) -> dict[str, int]:
        """Return no files."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class RunLog:
    """`log.jsonl`, `metrics.csv` and TensorBoard events of a run folder.

    On resume they are cut to the sizes in the record, since later steps run
    again. After a resume the files hold what they would hold without the interruption.
    """

    def __init__(
        self, folder: Path, record: Record, start_step: int, columns: Sequence[str], reporter: Reporter
    ) -> None:
        self._folder, self._record = folder, record
        self._csv, self._log = folder / "metrics.csv", folder / "log.jsonl"
        if record.files is None:
            record.rows = [row for row in read_rows(self._csv) if row["step"] <= start_step]
        else:
            self._cut(record.files)
        # a run that an earlier version began keeps its columns first
        earlier: Mapping[str, Any] = {}
        with suppress(DataError):  # the rows are in the record
            earlier = next(iter(read_rows(self._csv)), {})
        self._columns = list(dict.fromkeys([*earlier, *columns]))
        self.epochs()
        with writing(self._log):
            self._events = self._log.open("a", encoding="utf-8")
        self._board: _Board | None = None
        try:
            self._board = _Board(folder / "tensorboard", start_step)
        except ImportError:
            reporter.message(f"no TensorBoard events: {install_command('tensorboard')} adds them")

    def event(self, kind: str, **values: Any) -> None:
        """Append one record to `log.jsonl`."""
        record = {"event": kind, "time": round(time.time(), 3), **values}
        with writing(self._log):
            self._events.write(json.dumps(record) + "\n")
            self._events.flush()

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add numbers to the TensorBoard curves `group/name`."""
        if self._board is not None:
            self._board.scalars({f"{group}/{name}": value for name, value in values.items()}, step)

    def epochs(self) -> None:
        """Write the record's rows to `metrics.csv`."""
        if not self._record.rows:
            with writing(self._csv):
                self._csv.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        for row in self._record.rows:
            writer.writerow({name: _short(row.get(name)) for name in self._columns})
        write_file(self._csv, text.getvalue().encode())

    def sizes(self) -> dict[str, int]:
        """Return the bytes of `log.jsonl` and of TensorBoard's files by name, all of them on the disk."""
        sizes = {}
        with writing(self._folder):
            for path in self._growing():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    sizes[self._name(path)] = os.fstat(file.fileno()).st_size
        return sizes

    def _cut(self, sizes: Mapping[str, int]) -> None:
        """Cut the growing files to these sizes and remove TensorBoard's others."""
        for path in self._growing():
            size = sizes.get(self._name(path))
            with writing(path):
                if size is None and path != self._log:
                    path.unlink()
                elif path.stat().st_size > (size or 0):
                    os.truncate(path, size or 0)

    def _growing(self) -> list[Path]:
        board = sorted((self._folder / "tensorboard").glob("*tfevents*"))
        return [*([self._log] if self._log.exists() else []), *board]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def close(self) -> None:
        """Flush and close all files."""
        with writing(self._log):
            self._events.flush()
            os.fsync(self._events.fileno())
            self._events.close()
        if self._board is not None:
            self._board.close()


class _Board:
    """The file of this process among TensorBoard's, written unbuffered, so that a full disk raises an error here."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        # TensorBoard reads files in the order of their names, which begin with the time of creation in seconds
        seconds = [int(second) for path in folder.glob("*") for second in re.findall(r"tfevents\.(\d+)", path.name)]
        second = max(int(time.time()), max(seconds, default=0) + 1)
        self._path = folder / f"events.out.tfevents.{second:010d}.{socket.gethostname()}.{os.getpid()}.0"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if start_step:  # running TensorBoard readers drop later steps on this event
            self._write(step=start_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=points))

    def _write(self, **content: Any) -> None:
        with writing(self._path):
            self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.csv`, texts but for `step`; none without a file. Raises DataError."""
    try:
        text = io.StringIO(read_file(path, TEXT_BYTES).decode(), newline="")
        rows = [{name: value for name, value in row.items() if name is not None} for row in csv.DictReader(text)]
        return [{**row, "epoch": row["epoch"], "step": int(row["step"])} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            "the rows of the run cannot be read", file=path, expected="columns epoch and step, numbers of steps",
            got=repr(error)[:200], hint="move the file away, and the run goes on with a new one",
        ) from None  # fmt: skip
