"""Two loss curves over the steps, and below them how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctnet.bench.curves import Alignment, Run
from ctnet.data.canvas import GREY, GRID, INK, PALETTE, Color, blank, curve, line, text, vertical_text
from ctnet.data.image import Image

WIDTH, LEFT, RIGHT = 860, 78, 600
LOSSES, ERRORS = (46, 330), (366, 520)  # top and bottom of the panels, pixels
FLOOR = 1e-8
"""smaller relative errors, and none, are drawn here: a float32 holds no more"""


class _Axis(NamedTuple):
    """A panel whose vertical axis is logarithmic: equal relative differences are equal distances."""

    top: int
    bottom: int
    low: float  # of the numbers at the bottom
    high: float

    def y(self, value: float) -> float:
        span = math.log10(self.high / self.low)
        return self.bottom - (self.bottom - self.top) * math.log10(max(value, self.low) / self.low) / span


def loss_plot(subject: Mapping[str, Any], runs: Sequence[Run], alignment: Alignment | None) -> Image:
    """Return the total losses of one or two runs and, of two, the relative error of every step with its limit."""
    canvas = blank((ERRORS if alignment else LOSSES)[1] + 60, WIDTH)
    steps = len(runs[0].losses)
    height, width = subject["image_size"]
    text(canvas, f"{subject['recipe']}, {height} x {width}: loss", ((LEFT + RIGHT) // 2, 20), INK, 0.5, "middle")
    values = [value for run in runs for value in run.total() if 0 < value < math.inf]
    axis = _Axis(*LOSSES, *_decades(min(values, default=1.0), max(values, default=1.0)))
    _frame(canvas, axis, steps, _ticks(axis))
    for index, run in enumerate(runs):
        # the second is thin: where both agree, the first shows on both sides of it
        _draw(canvas, axis, run.total(), PALETTE[index], 1 if index else 3)
        _legend(canvas, axis.top + 12 + 24 * index, run.label, PALETTE[index])
    if alignment is not None:
        errors = _Axis(*ERRORS, *_decades(FLOOR, max(*alignment.errors, alignment.tolerance)))
        _frame(canvas, errors, steps, _ticks(errors)[::2])
        _draw(canvas, errors, alignment.errors, INK, 1)
        _draw(canvas, errors, [alignment.tolerance] * steps, PALETTE[3], 1)
        _legend(canvas, errors.top + 12, f"relative error, mean {alignment.mean:.2g}", INK)
        _legend(canvas, errors.top + 36, f"tolerance {alignment.tolerance:g}", PALETTE[3])
        vertical_text(canvas, "relative error", (18, (ERRORS[0] + ERRORS[1]) // 2 + 50), INK, 0.45)
    text(canvas, "step", ((LEFT + RIGHT) // 2, canvas.shape[0] - 16), INK, 0.45, "middle")
    return canvas


def _decades(low: float, high: float) -> tuple[float, float]:
    """Return the powers of ten around two positive numbers, at least one apart."""
    below, above = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**below, 10.0 ** max(above, below + 1)


def _ticks(axis: _Axis) -> list[float]:
    """Return the powers of ten of an axis, and 2 and 5 times them where there are few."""
    count = round(math.log10(axis.high / axis.low))
    factors = (1, 2, 5) if count <= 2 else (1,)
    ticks = [axis.low * 10**power * factor for power in range(count) for factor in factors]
    return [*ticks, axis.high]


def _frame(canvas: Image, axis: _Axis, steps: int, ticks: Sequence[float]) -> None:
    for tick in ticks:
        y = round(axis.y(tick))
        line(canvas, (LEFT, y), (RIGHT, y), GRID)
        text(canvas, f"{tick:g}", (LEFT - 8, y), INK, 0.4, "right")
    for step in sorted({round(1 + (steps - 1) * part / 5) for part in range(6)}):
        x = round(_x(step, steps))
        line(canvas, (x, axis.top), (x, axis.bottom), GRID)
        text(canvas, str(step), (x, axis.bottom + 16), INK, 0.4, "middle")
    line(canvas, (LEFT, axis.top), (LEFT, axis.bottom), GREY)
    line(canvas, (LEFT, axis.bottom), (RIGHT, axis.bottom), GREY)


def _draw(canvas: Image, axis: _Axis, values: Sequence[float], color: Color, width: int) -> None:
    finite = [(_x(step, len(values)), axis.y(v)) for step, v in enumerate(values, 1) if math.isfinite(v)]
    x, y = np.array(finite, np.float64).reshape(-1, 2).T
    curve(canvas, x, y, color, width)


def _legend(canvas: Image, y: int, words: str, color: Color) -> None:
    line(canvas, (RIGHT + 24, y), (RIGHT + 46, y), color, 2)
    text(canvas, words, (RIGHT + 54, y), INK, 0.42)


def _x(step: int, steps: int) -> float:
    return LEFT + (RIGHT - LEFT) * (step - 1) / max(steps - 1, 1)
