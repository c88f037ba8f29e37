"""Run folders side by side: how far each is, how good, and their curves on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ctnet.engine.report import read_rows
from ctnet.engine.run_folder import LAST, RUNS, read_environment
from ctnet.errors import ConfigError, CtnetError
from ctnet.eval.charts import line_chart
from ctnet.eval.coco import percent
from ctnet.eval.html import STYLE, escape
from ctnet.files import is_file, read_file, write_file
from ctnet.limits import TEXT_BYTES, parse_json

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ctnet runs</title>
<style>
{style}
svg {{ width: 100%; max-width: 35rem; height: auto; vertical-align: top; }}
</style>
</head>
<body>
<h1>Runs</h1>
<div>
{charts}
</div>
<div class="scroll"><table class="names">
<tr>{head}</tr>
{rows}
</table></div>
</body>
</html>
"""
COLUMNS = ("run", "state", "epoch", "step", "loss", "AP", "best AP", "hours", "images/s", "changed", "data")


@dataclass(frozen=True)
class Run:
    """A run folder with its rows of `metrics.csv`; `finished` when it has a summary of its last step."""

    folder: Path
    rows: list[dict[str, Any]]
    finished: bool
    changed: float
    data: str

    def numbers(self, name: str) -> list[tuple[float, float | None]]:
        """Return (epoch, value) of each row, None where nothing was measured."""
        return [(float(row["epoch"]), float(row[name]) if row.get(name) else None) for row in self.rows]

    def latest(self, name: str) -> float | None:
        """Return the last value that was measured."""
        return next((value for _, value in reversed(self.numbers(name)) if value is not None), None)

    def cells(self) -> dict[str, str]:
        """Return the texts of `COLUMNS`."""
        last = self.rows[-1] if self.rows else {}
        scores = [value for _, value in self.numbers("AP") if value is not None]
        loss, seconds, speed = (self.latest(name) for name in ("loss", "wall_s", "images_per_s"))
        cells = (
            str(self.folder), "finished" if self.finished else "unfinished", last.get("epoch", "-"),
            last.get("step", "-"), "-" if loss is None else f"{loss:.3f}", percent(self.latest("AP")),
            percent(max(scores, default=None)), "-" if seconds is None else f"{seconds / 3600:.2f}",
            "-" if speed is None else f"{speed:.1f}", datetime.fromtimestamp(self.changed).strftime("%Y-%m-%d %H:%M"),
            self.data,
        )  # fmt: skip
        return dict(zip(COLUMNS, map(str, cells), strict=True))


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs in or below the folders (by default `runs/train`), the latest first, and what cannot be read.

    Raises ConfigError when there is none.
    """
    places = [place for folder in folders or [RUNS] for place in (folder, *sorted(folder.glob("*")))]
    runs, warnings = [], []
    for place in dict.fromkeys(places):
        if not is_file(place / LAST):
            continue
        try:
            runs.append(_read(place))
        except CtnetError as error:
            warnings.append(f"{place}: {str(error).splitlines()[0]}")
    if not runs and not warnings:
        looked = ", ".join(str(folder) for folder in folders) or str(RUNS)
        raise ConfigError("there are no runs", looked_in=looked, hint="name run folders, or folders that hold some")
    return sorted(runs, key=lambda run: -run.changed), warnings


def _read(folder: Path) -> Run:
    rows = read_rows(folder / "metrics.csv")
    finished = False
    with suppress(OSError, ValueError):
        summary = parse_json(read_file(folder / "summary.json", TEXT_BYTES))
        finished = isinstance(summary, dict) and bool(rows) and summary.get("steps") == rows[-1]["step"]
    data = read_environment(folder).get("data")
    first: Any = next(iter(data.values()), {}) if isinstance(data, dict) else {}
    source = first.get("source", "") if isinstance(first, dict) else ""
    return Run(folder, rows, finished, (folder / LAST).stat().st_mtime, str(source))


def write_comparison(file: Path, runs: Sequence[Run]) -> None:
    """Write a page with the AP and loss curves of the runs over each other, and their table."""
    names = {run.folder: run.folder.name for run in runs}
    if len(set(names.values())) < len(names):
        names = {run.folder: str(run.folder) for run in runs}
    charts = [
        line_chart("AP, x100", "epoch", {names[run.folder]: run.numbers("AP") for run in runs}, scale=100),
        line_chart("loss", "epoch", {names[run.folder]: run.numbers("loss") for run in runs}),
    ]
    rows = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in run.cells().values()) + "</tr>" for run in runs]
    page = PAGE.format(
        style=STYLE, charts="\n".join(filter(None, charts)), rows="\n".join(rows),
        head="".join(f"<th>{name}</th>" for name in COLUMNS),
    )  # fmt: skip
    write_file(file, page.encode())
