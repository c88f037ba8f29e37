"""The plots of the report: precision-recall curves, the confusion matrix, one image's errors."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data.canvas import (
    GREY,
    GRID,
    INK,
    PALETTE,
    REST,
    WHITE,
    Color,
    blank,
    curve,
    letters,
    text,
    text_size,
    vertical_text,
)  # fmt: skip
from ctnet.data.image import Image
from ctnet.eval.coco import RECALL_POINTS, CocoMetrics, percent
from ctnet.eval.matching import Match
from ctnet.types import Category, Float32, Int64

TRUTH: Color = (90, 175, 60)
MISSED: Color = (0, 140, 255)
CORRECT: Color = (225, 130, 30)
WRONG: Color = (60, 30, 220)


def precision_recall_plot(metrics: CocoMetrics, categories: Sequence[Category]) -> Image:
    """Return the curves per class and their mean, at IoU 0.5 and averaged over 0.5 to 0.95.

    The classes with most ground truth have a colour and a line in the legend, further ones are grey.
    """
    panel, legend, height = 470, 250, 470
    canvas = blank(height, 2 * panel + legend)
    counts = [row["count"] or 0 for row in metrics.per_class.values()]
    labels = sorted(range(len(counts)), key=lambda label: -counts[label])
    curves = (metrics.precision[0], metrics.precision.mean(axis=0))
    for index, (title, curve_RC) in enumerate(zip(("IoU 0.5", "IoU 0.5 to 0.95"), curves, strict=True)):
        axes = (panel * index + 62, 44, panel * (index + 1) - 22, height - 62)
        _axes(canvas, axes, title)
        for rank in reversed(range(len(labels))):
            _curve(canvas, axes, curve_RC[:, labels[rank]], PALETTE[rank] if rank < len(PALETTE) else REST, 1)
        _curve(canvas, axes, _mean_curve(curve_RC), INK, 2)
    rows = list(metrics.per_class.values())
    entries = [("mean", metrics.AP50, metrics.AP, INK, 2)]
    for label, color in zip(labels, PALETTE, strict=False):
        entries.append((_name(categories[label], 15), rows[label]["AP50"], rows[label]["AP"], color, 2))
    _legend(canvas, 2 * panel + 4, entries, len(labels) - len(PALETTE))
    return canvas


def confusion_plot(counts: Int64, categories: Sequence[Category]) -> Image:
    """Return the confusion matrix as an image: shade is the share of its row, the number is the count."""
    names = [*(_name(category, 20) for category in categories), "background"]
    cell = int(np.clip(900 // len(names), 13, 64))
    scale = 0.42 if cell >= 24 else 0.32
    margin = 44 + max(text_size(name, scale)[0] for name in names)
    side = cell * len(names)
    canvas = blank(margin + side + 16, max(margin + side + 16, 420))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.ndindex(*counts.shape):
        x, y = margin + column * cell, margin + row * cell
        share = float(shares[row, column])
        shade = tuple(round(255 - share * (255 - c)) for c in (150, 82, 22))
        cv2.rectangle(canvas, (x, y), (x + cell - 1, y + cell - 1), shade, cv2.FILLED)
        if cell >= 34 and counts[row, column]:
            ink = WHITE if share > 0.5 else INK
            text(canvas, _count(int(counts[row, column])), (x + cell // 2, y + cell // 2), ink, scale, "middle")
    for index, name in enumerate(names):
        middle = margin + index * cell + cell // 2
        text(canvas, name, (margin - 8, middle), INK, scale, "right")
        vertical_text(canvas, name, (middle, margin - 8), INK, scale)
    cv2.rectangle(canvas, (margin - 1, margin - 1), (margin + side, margin + side), GREY, 1)
    text(canvas, "predicted", (margin + side // 2, 14), GREY, 0.45, "middle")
    vertical_text(canvas, "true", (14, margin + side // 2 + text_size("true", 0.45)[0] // 2), GREY, 0.45)
    return canvas


def match_plot(image_bgr: Image, match: Match, categories: Sequence[Category]) -> Image:
    """Return the image with objects solid, detections dashed, and what is wrong bold and named.

    The image is scaled to a longer side of 800 to 1600 pixels; a line above it explains the colours.
    """
    longest = max(image_bgr.shape[:2])
    scale = float(np.clip(longest, 800, 1600)) / longest
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(image_bgr, None, fx=scale, fy=scale, interpolation=method), np.uint8)
    truth, found = match.truth_boxes * scale, match.found.boxes_xyxy * scale
    correct, missed = match.correct, match.missed
    for index in np.setdiff1d(np.arange(len(truth)), missed):
        _solid_box(resized, truth[index], TRUTH, 1)
    drawn = np.isfinite(found).all(axis=1)  # not those of weights that diverged
    for index in np.flatnonzero(correct & drawn):
        _dashed_box(resized, found[index], CORRECT, 1)
    for index in missed:
        _solid_box(resized, truth[index], MISSED, 3)
    for index in np.flatnonzero(~correct & drawn):
        _dashed_box(resized, found[index], WRONG, 2)
    if match.truth_points is not None and match.found.keypoints is not None:
        for index in np.flatnonzero(correct):
            _point_errors(resized, match.truth_points[match.truth_of[index]], match.found.keypoints[index], scale)
    for index in missed:
        _tag(resized, _name(categories[match.truth_labels[index]], 20), truth[index], MISSED, below=True)
    for index in np.flatnonzero(~correct & drawn):
        _tag(resized, _wrong_text(match, int(index), categories), found[index], WRONG)
    return _with_key(
        resized,
        [
            (f"found {len(truth) - len(missed)}", TRUTH, False),
            (f"missed {len(missed)}", MISSED, False),
            (f"right detections {int(correct.sum())}", CORRECT, True),
            (f"wrong detections {int((~correct).sum())}", WRONG, True),
        ],
    )


def points_plot(image_bgr: Image, box_xyxy: Float32, truth: Float32, found: Float32, side: int = 420) -> Image:
    """Return the surroundings of an object, of that side in pixels, with its points (P,3) and the found ones (P,2)."""
    middle, reach = (box_xyxy[:2] + box_xyxy[2:]) / 2, 0.65 * float((box_xyxy[2:] - box_xyxy[:2]).max())
    scale = side / max(2 * reach, 1.0)
    shift = side / 2 - scale * middle
    moved = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float64)
    canvas = np.asarray(cv2.warpAffine(image_bgr, moved, (side, side), flags=cv2.INTER_LINEAR), np.uint8)
    _solid_box(canvas, np.concatenate([box_xyxy[:2] * scale + shift, box_xyxy[2:] * scale + shift]), TRUTH, 1)
    there = np.column_stack([truth[:, :2] * scale + shift, truth[:, 2]])
    _point_errors(canvas, there, found * scale + shift, 1.0)
    return _with_key(canvas, [("labelled", TRUTH, False), ("found", CORRECT, False)])


def _point_errors(canvas: Image, truth: NDArray[np.floating], found: NDArray[np.floating], scale: float) -> None:
    """Draw labelled points, those that were found for them, and what lies between; others that were found hollow."""
    pixels = [np.clip(np.nan_to_num(p[:, :2] * scale), -(2**15), 2**15).round().astype(int) for p in (truth, found)]
    for start, end, seen in zip(*(p.tolist() for p in pixels), truth[:, 2], strict=True):
        if seen > 0:
            cv2.line(canvas, start, end, WRONG, 1, cv2.LINE_AA)
            cv2.circle(canvas, start, 3, TRUTH, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(canvas, end, 3, CORRECT, cv2.FILLED if seen > 0 else 1, cv2.LINE_AA)


def _wrong_text(match: Match, index: int, categories: Sequence[Category]) -> str:
    name = _name(categories[match.found.labels[index]], 20)
    truth = int(match.truth_of[index])
    instead = f", is {_name(categories[match.truth_labels[truth]], 20)}" if truth >= 0 else ""
    return f"{name} {match.found.scores[index]:.2f}{instead}"


def _axes(canvas: Image, axes: tuple[int, int, int, int], title: str) -> None:
    left, top, right, bottom = axes
    for tick in range(6):
        x, y = left + (right - left) * tick // 5, bottom - (bottom - top) * tick // 5
        cv2.line(canvas, (x, top), (x, bottom), GRID, 1)
        cv2.line(canvas, (left, y), (right, y), GRID, 1)
        text(canvas, f"{tick / 5:.1f}", (x, bottom + 15), INK, 0.4, "middle")
        text(canvas, f"{tick / 5:.1f}", (left - 8, y), INK, 0.4, "right")
    cv2.line(canvas, (left, top), (left, bottom), GREY, 1)
    cv2.line(canvas, (left, bottom), (right, bottom), GREY, 1)
    text(canvas, title, ((left + right) // 2, top - 20), INK, 0.5, "middle")
    text(canvas, "recall", ((left + right) // 2, bottom + 38), INK, 0.45, "middle")
    vertical_text(canvas, "precision", (left - 46, (top + bottom) // 2 + 32), INK, 0.45)


def _curve(
    canvas: Image, axes: tuple[int, int, int, int], precision: NDArray[np.float64], color: Color, width: int
) -> None:
    if np.isnan(precision).any():
        return
    left, top, right, bottom = axes
    x = left + RECALL_POINTS * (right - left)
    y = bottom - precision * (bottom - top)
    curve(canvas, x, y, color, width)


def _mean_curve(curve_RC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over classes that have ground truth; all NaN when none has."""
    measured = curve_RC[:, ~np.isnan(curve_RC).any(axis=0)]
    return measured.mean(axis=1) if measured.size else np.full(len(curve_RC), np.nan)


def _legend(
    canvas: Image,
    left: int,
    entries: Sequence[tuple[str, float | None, float | None, Color, int]],
    num_grey: int,
) -> None:
    """Draw (name, AP50, AP, colour, line width) one below the other, then how many curves are grey."""
    text(canvas, "AP50", (left + 188, 24), GREY, 0.4, "right")
    text(canvas, "AP", (left + 236, 24), GREY, 0.4, "right")
    for index, (name, ap50, ap, color, width) in enumerate(entries):
        y = 48 + 24 * index
        cv2.line(canvas, (left, y), (left + 22, y), color, width, cv2.LINE_AA)
        text(canvas, name, (left + 30, y), INK, 0.42)
        text(canvas, percent(ap50), (left + 188, y), INK, 0.42, "right")
        text(canvas, percent(ap), (left + 236, y), INK, 0.42, "right")
    if num_grey > 0:
        y = 48 + 24 * len(entries)
        cv2.line(canvas, (left, y), (left + 22, y), REST, 2, cv2.LINE_AA)
        text(canvas, f"{num_grey} more", (left + 30, y), INK, 0.42)


def _solid_box(canvas: Image, box_xyxy: Float32, color: Color, width: int) -> None:
    x1, y1, x2, y2 = np.clip(np.round(box_xyxy), -(2**15), 2**15).astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, width, cv2.LINE_AA)


def _dashed_box(canvas: Image, box_xyxy: Float32, color: Color, width: int) -> None:
    height_px, width_px = canvas.shape[:2]
    x1, y1, x2, y2 = np.clip(np.round(box_xyxy), 0, [width_px - 1, height_px - 1] * 2).astype(int).tolist()
    for x in range(x1, x2 + 1, 12):
        for y in (y1, y2):
            cv2.line(canvas, (x, y), (min(x + 6, x2), y), color, width)
    for y in range(y1, y2 + 1, 12):
        for x in (x1, x2):
            cv2.line(canvas, (x, y), (x, min(y + 6, y2)), color, width)


def _tag(canvas: Image, words: str, box_xyxy: Float32, color: Color, below: bool = False) -> None:
    """Draw white text on colour, above the box's top left corner or inside its bottom left one."""
    width, height = text_size(words, 0.45)
    limit_y, limit_x = canvas.shape[0] - height - 8, canvas.shape[1] - width - 8
    x = int(np.clip(box_xyxy[0], 0, max(limit_x, 0)))
    y = int(np.clip(box_xyxy[3] - height - 8 if below else box_xyxy[1] - height - 8, 0, max(limit_y, 0)))
    cv2.rectangle(canvas, (x, y), (x + width + 8, y + height + 8), color, cv2.FILLED)
    text(canvas, words, (x + 4, y + 4 + height // 2), WHITE, 0.45)


def _with_key(canvas: Image, entries: Sequence[tuple[str, Color, bool]]) -> Image:
    strip = blank(34, canvas.shape[1])
    x = 12
    for words, color, dashed in entries:
        (_dashed_box if dashed else _solid_box)(strip, np.array([x, 10, x + 24, 24], np.float32), color, 2)
        text(strip, words, (x + 33, 17), INK, 0.45)
        x += 33 + text_size(words, 0.45)[0] + 22
    return np.concatenate([strip, canvas])


def _name(category: Category, length: int) -> str:
    """Return the class's name as it can be drawn, short of its middle if too long."""
    name = letters(category)
    return name if len(name) <= length else f"{name[: length - 7]}..{name[-5:]}"


def _count(value: int) -> str:
    return str(value) if value < 10_000 else f"{value // 1000}k"
