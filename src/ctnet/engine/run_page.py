"""`index.html` of a run folder: how far the run is, its curves, its classes, and links to what it has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet.eval.charts import line_chart
from ctnet.eval.coco import percent
from ctnet.eval.html import STYLE, escape
from ctnet.eval.scorer import Scorer
from ctnet.files import write_file

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>
{style}
svg {{ width: 100%; max-width: 35rem; height: auto; vertical-align: top; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="quiet">{data}</p>
<p>{progress}</p>
<p>{best}</p>
<div>
{charts}
</div>
{classes}
<h2>Files</h2>
<p>{links}</p>
{images}
</body>
</html>
"""
_LINKS = (
    "eval/index.html", "metrics.csv", "log.jsonl", "config.yaml", "env.json",
    "checkpoints/MODEL.md", "checkpoints/best.safetensors", "checkpoints/last.pt",
)  # fmt: skip
_REFRESH_SECONDS = 30


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps, epochs, and seconds passed and left; None where no time has been measured."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    seconds: float
    seconds_left: float | None

    def sentence(self) -> str:
        """Return it as a line."""
        done = f"epoch {self.epoch} of {self.epochs}, step {self.step} of {self.total_steps}, {clock(self.seconds)}"
        if self.step >= self.total_steps:
            return f"{done}, finished"
        return done if self.seconds_left is None else f"{done}, {clock(self.seconds_left)} left"


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def write_run_page(
    folder: Path, title: str, data: str, progress: Progress, rows: Sequence[Mapping[str, Any]],
    loss_parts: Sequence[str], scorer: Scorer, best: Mapping[str, Any],
    per_class: Mapping[str, Mapping[str, float | int | None]],
) -> None:  # fmt: skip
    """Write `index.html` from the rows of `metrics.csv`, the best evaluation and the classes of the latest one."""
    number = scorer.primary
    words = "no evaluation yet"
    if best:
        words = f"best {number} {percent(best.get(number))} at epoch {best.get('epoch')}, step {best.get('step')}"
    charts = [
        line_chart("loss", "epoch", {name: _curve(rows, name) for name in ("loss", *loss_parts)}),
        line_chart(f"{scorer.title}, x100", "epoch", {n: _curve(rows, n) for n in scorer.shown}, scale=100),
        line_chart("learning rate", "epoch", {"lr": _curve(rows, "lr")}),
        line_chart("images per second", "epoch", {"images/s": _curve(rows, "images_per_s")}),
    ]
    finished = progress.step >= progress.total_steps
    sheets = sorted((folder / "samples").glob("val_epoch_*.jpg"))[-1:] + sorted(
        (folder / "samples").glob("train_batch_*.jpg")
    )
    page = PAGE.format(
        refresh="" if finished else f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">\n',
        title=escape(title), style=STYLE, data=escape(data), progress=escape(progress.sentence()),
        best=escape(words), charts="\n".join(chart for chart in charts if chart),
        classes=_classes(per_class, scorer),
        links=" · ".join(f'<a href="{name}">{name}</a>' for name in _LINKS if (folder / name).exists()),
        images="\n".join(
            f'<figure><figcaption>{path.name}</figcaption><img src="samples/{path.name}" alt=""></figure>'
            for path in sheets
        ),
    )  # fmt: skip
    write_file(folder / "index.html", page.encode())


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float | None]]:
    """Return (epoch, value); rows that were read from a file hold texts."""
    points = []
    for row in rows:
        value = row.get(name)
        points.append((float(row["epoch"]), None if value in (None, "") else float(value)))
    return points


def _classes(per_class: Mapping[str, Mapping[str, float | int | None]], scorer: Scorer) -> str:
    if not per_class:
        return ""
    lines = [
        f"<tr><td>{escape(name)}</td><td>{row.get('count')}</td>"
        + "".join(f"<td>{percent(row.get(number))}</td>" for number in scorer.per_class)
        + "</tr>"
        for name, row in per_class.items()
    ]
    head = "".join(f"<th>{number}</th>" for number in scorer.per_class)
    return (
        '<h2>Classes at the latest evaluation</h2>\n<div class="scroll"><table class="names">\n'
        f"<tr><th>class</th><th>boxes</th>{head}</tr>\n" + "\n".join(lines) + "\n</table></div>"
    )
