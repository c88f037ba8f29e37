"""Curves as SVG inside a page: no script, no file beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ctnet.eval.html import escape

COLORS = ("#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#b45309")
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 28, 34

Points = Sequence[tuple[float, float | None]]


def line_chart(title: str, x_name: str, lines: Mapping[str, Points], *, scale: float = 1.0) -> str:
    """Return a chart as an `<svg>` element: a line through the points of each name, with axes and a legend.

    `scale` multiplies the values. Points whose value is None or not finite are left out; without any point at all the
    text is empty.
    """
    kept = {
        name: [(x, y * scale) for x, y in points if y is not None and math.isfinite(y)]
        for name, points in lines.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    every = [point for points in kept.values() for point in points]
    if not every:
        return ""
    x_ticks = _ticks(min(x for x, _ in every), max(x for x, _ in every))
    y_ticks = _ticks(min(0.0, *(y for _, y in every)), max(y for _, y in every))
    rows = -(-len(kept) // 4)
    height = _HEIGHT + 18 * rows

    def place(x: float, y: float) -> tuple[float, float]:
        width, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + width * across, _TOP + tall * (1 - up)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" font-size="12" fill="#6a7079">',
        f'<text x="{_LEFT}" y="16" font-weight="600" fill="#282c32">{escape(title)}</text>',
    ]
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e3e5e8"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{tick:.4g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 3}" text-anchor="end">{escape(x_name)}</text>')
    for index, (name, points) in enumerate(kept.items()):
        color = COLORS[index % len(COLORS)]
        places = [place(*point) for point in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(points) < 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in places]
        column, row = index % 4, index // 4
        x, y = _LEFT + column * 126, _HEIGHT + 12 + 18 * row
        parts.append(f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{x + 15}" y="{y + 1}">{escape(name[:18])}</text>')
    return "\n".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Return four to eight round numbers around a range."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-6):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * index for index in range(first, last + 1)]
