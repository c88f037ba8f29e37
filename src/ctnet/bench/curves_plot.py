"""Two loss curves over the steps, and their relative error below."""

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
    ticks: list[float]  # from the number at the bottom to the one at the top

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.bottom - (self.bottom - self.top) * math.log10(max(value, low) / low) / math.log10(high / low)


def loss_plot(subject: Mapping[str, Any], runs: Sequence[Run], alignment: Alignment | None) -> Image:
    """Return the total losses of one or two runs and, of two, the relative error of every step with its limit."""
    canvas = blank((ERRORS if alignment else LOSSES)[1] + 60, WIDTH)
    steps = len(runs[0].losses)
    height, width = subject["image_size"]
    text(canvas, f"{subject['recipe']}, {height} x {width}: loss", ((LEFT + RIGHT) // 2, 20), INK, 0.5, "middle")
    values = [value for run in runs for value in run.total() if value > 0]
    axis = _Axis(*LOSSES, _ticks(min(values, default=1.0), max(values, default=1.0), (1, 2, 5)))
    _frame(canvas, axis, steps)
    for index, run in enumerate(runs):
        # the second is thin: where both agree, the first shows on both sides of it
        _draw(canvas, axis, run.total(), PALETTE[index], 1 if index else 3)
        _legend(canvas, axis.top + 12 + 24 * index, run.label, PALETTE[index])
    if alignment is not None:
        errors = _Axis(*ERRORS, _ticks(FLOOR, max(*alignment.errors, alignment.tolerance), (1,)))
        _frame(canvas, errors, steps)
        _draw(canvas, errors, alignment.errors, INK, 1)
        _draw(canvas, errors, [alignment.tolerance] * steps, PALETTE[3], 1)
        _legend(canvas, errors.top + 12, f"relative error, mean {alignment.mean:.2g}", INK)
        _legend(canvas, errors.top + 36, f"tolerance {alignment.tolerance:g}", PALETTE[3])
        vertical_text(canvas, "relative error", (18, (ERRORS[0] + ERRORS[1]) // 2 + 50), INK, 0.45)
    text(canvas, "step", ((LEFT + RIGHT) // 2, canvas.shape[0] - 16), INK, 0.45, "middle")
    return canvas


def _ticks(low: float, high: float, factors: Sequence[int]) -> list[float]:
    """Return two or more of the powers of ten times the factors: from one not above `low` to one not below `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
    ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
    start = max(index for index, tick in enumerate(ticks) if tick <= low)
    end = min(index for index, tick in enumerate(ticks) if tick >= high)
    return ticks[start : max(end, start + 1) + 1]


def _frame(canvas: Image, axis: _Axis, steps: int) -> None:
    for tick in axis.ticks[:: 1 + len(axis.ticks) // 7]:
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
    x = np.array([_x(step, len(values)) for step in range(1, len(values) + 1)])
    curve(canvas, x, np.array([axis.y(value) for value in values]), color, width)


def _legend(canvas: Image, y: int, words: str, color: Color) -> None:
    line(canvas, (RIGHT + 24, y), (RIGHT + 46, y), color, 2)
    text(canvas, words, (RIGHT + 54, y), INK, 0.42)


def _x(step: int, steps: int) -> float:
    return LEFT + (RIGHT - LEFT) * (step - 1) / max(steps - 1, 1)
