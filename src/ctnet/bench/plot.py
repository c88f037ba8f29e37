"""Images a second over batch size, a line per runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctnet.data.canvas import (
    GREY,
    GRID,
    INK,
    PALETTE,
    Color,
    blank,
    curve,
    dot,
    line,
    text,
    vertical_text,
)  # fmt: skip
from ctnet.data.image import Image

HEIGHT, WIDTH = 420, 860
LEFT, TOP, RIGHT, BOTTOM = 74, 46, 560, 360


def speed_plot(document: Mapping[str, Any]) -> Image:
    """Return the plot of a document's rows and of published figures. Batch sizes are evenly spaced."""
    lines: dict[str, dict[int, float]] = {}
    for row in document["rows"]:
        if row["images_per_s"] is not None:
            lines.setdefault(_name(row), {})[row["batch"]] = row["images_per_s"]
    batches = sorted({batch for rates in lines.values() for batch in rates})
    colors: dict[str, Color] = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(lines)}
    reference = document.get("reference")
    if reference and reference["images_per_s"]:
        name = f"{reference['name']}{' (forward alone)' if reference['kind'] == 'inference' else ''}"
        lines[name] = {int(batch): rate for batch, rate in reference["images_per_s"].items() if int(batch) in batches}
        colors[name] = GREY
    top = _ceiling(max((rate for rates in lines.values() for rate in rates.values()), default=1.0))
    canvas = blank(HEIGHT, WIDTH)
    subject = document["subject"]
    height, width = subject["image_size"]
    _axes(canvas, f"{subject['recipe']}, {height} x {width}", batches, top)
    for index, (name, rates) in enumerate(lines.items()):
        points = [(_x(batches.index(batch), len(batches)), _y(rate, top)) for batch, rate in sorted(rates.items())]
        for point in points:
            dot(canvas, point, colors[name])
        if len(points) > 1:
            x, y = np.array(points, np.float64).T
            curve(canvas, x, y, colors[name], 2)
        y_legend = TOP + 12 + 24 * index
        line(canvas, (RIGHT + 24, y_legend), (RIGHT + 46, y_legend), colors[name], 2)
        text(canvas, name, (RIGHT + 54, y_legend), INK, 0.42)
    return canvas


def _axes(canvas: Image, title: str, batches: list[int], top: float) -> None:
    for tick in range(6):
        y = _y(top * tick / 5, top)
        line(canvas, (LEFT, y), (RIGHT, y), GRID)
        text(canvas, f"{top * tick / 5:g}", (LEFT - 8, y), INK, 0.4, "right")
    for index, batch in enumerate(batches):
        x = _x(index, len(batches))
        line(canvas, (x, TOP), (x, BOTTOM), GRID)
        text(canvas, str(batch), (x, BOTTOM + 16), INK, 0.4, "middle")
    line(canvas, (LEFT, TOP), (LEFT, BOTTOM), GREY)
    line(canvas, (LEFT, BOTTOM), (RIGHT, BOTTOM), GREY)
    text(canvas, title, ((LEFT + RIGHT) // 2, TOP - 22), INK, 0.5, "middle")
    text(canvas, "batch size", ((LEFT + RIGHT) // 2, BOTTOM + 40), INK, 0.45, "middle")
    vertical_text(canvas, "images/s", (18, (TOP + BOTTOM) // 2 + 30), INK, 0.45)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['runtime']} {row['precision']}" if row["precision"] else str(row["runtime"])


def _x(index: int, count: int) -> int:
    return round(LEFT + (RIGHT - LEFT) * (index + 0.5) / max(count, 1))


def _y(rate: float, top: float) -> int:
    return round(BOTTOM - (BOTTOM - TOP) * rate / top)


def _ceiling(value: float) -> float:
    """Return the next number of the form 1, 2 or 5 times a power of ten: five steps to it are easy to read."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)
