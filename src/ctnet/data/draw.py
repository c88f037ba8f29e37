"""Draw boxes and key points on images, and images on contact sheets."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import cv2
import numpy as np

from ctnet.data.canvas import letters
from ctnet.data.image import Image, read_image
from ctnet.errors import DataError
from ctnet.types import AnnotationSet, Category, Float32, Int64, KeypointSchema

Color = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER: Color = (40, 40, 40)
_LEFT, _RIGHT, _MIDDLE, _BONE = (90, 220, 60), (60, 140, 255), (255, 225, 80), (245, 245, 245)


def draw_boxes(
    image_bgr: Image,
    boxes_xyxy: Float32,
    labels: Int64,
    categories: Sequence[Category],
    scores: Float32 | None = None,
    keypoints: Float32 | None = None,
    schema: KeypointSchema | None = None,
    tracks: Sequence[int | None] | None = None,
) -> Image:
    """Return a copy of the image with each box outlined and named, its score, points and track's number when given.

    `keypoints` (N,P,2) are all drawn; of (N,P,3) those that are not labelled are left out and hidden ones are hollow.
    Points that a mirror image swaps have two colours, all others a third; `schema` says which those are and what is
    joined.

    Lines and letters follow the image's size; a label keeps its colour in every image. Boxes are in
    pixels of this image; what lies outside of it is not drawn. The first boxes are drawn last, so that the
    strongest of sorted detections stay on top.
    """
    canvas = image_bgr.copy()
    side = math.sqrt(canvas.shape[0] * canvas.shape[1])
    thickness = max(1, round(side / 320))
    corners = np.clip(np.nan_to_num(boxes_xyxy), -(2**15), 2**15).round().astype(int).tolist()
    order = range(len(labels) - 1, -1, -1)
    for i in order:
        x1, y1, x2, y2 = corners[i]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), label_color(int(labels[i])), thickness)
    if keypoints is not None:
        for i in order:
            draw_points(canvas, keypoints[i], boxes_xyxy[i], schema)
    for i in order:
        category = categories[int(labels[i])]
        text = letters(category)
        if scores is not None:
            text += f" {scores[i]:.2f}"
        if tracks is not None and tracks[i] is not None:
            text += f" #{tracks[i]}"
        _write(canvas, text, corners[i][:2], label_color(int(labels[i])), max(0.4, side / 1000), thickness)
    return canvas


def draw_points(canvas: Image, points: Float32, box_xyxy: Float32, schema: KeypointSchema | None) -> None:
    """Draw the points (P,2) or (P,3) of one object, and what joins them, into the image; see `draw_boxes`."""
    seen = points[:, 2] if points.shape[1] > 2 else np.full(len(points), 2.0)
    pixels = np.clip(np.nan_to_num(points[:, :2]), -(2**15), 2**15).round().astype(int).tolist()
    side = float(np.nan_to_num(np.abs(box_xyxy[2:] - box_xyxy[:2])).max())
    radius = int(np.clip(side / 40, 1, math.sqrt(canvas.shape[0] * canvas.shape[1]) / 120 + 1))
    for start, end in schema.skeleton if schema else ():
        if seen[start] > 0 and seen[end] > 0:
            cv2.line(canvas, pixels[start], pixels[end], _BONE, max(1, radius // 2 + 1), cv2.LINE_AA)
    sides = dict.fromkeys(range(len(points)), _MIDDLE)
    for left, right in schema.flip_pairs if schema else ():
        sides |= {left: _LEFT, right: _RIGHT}
    for index, pixel in enumerate(pixels):
        if seen[index] > 0:
            cv2.circle(canvas, pixel, radius + 1, (0, 0, 0), cv2.FILLED, cv2.LINE_AA)
            hollow = seen[index] == 1 and radius > 1
            cv2.circle(canvas, pixel, radius, sides[index], 1 if hollow else cv2.FILLED, cv2.LINE_AA)


def label_color(label: int) -> Color:
    """Return the BGR colour of a label: hues a golden ratio apart, so that neighbours differ."""
    hue = (0.02 + label * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.6)[label // 8 % 2], (1.0, 0.8)[label // 16 % 2])
    return round(blue * 255), round(green * 255), round(red * 255)


def contact_sheet(images: Sequence[Image], columns: int | None = None, cell: tuple[int, int] = (320, 320)) -> Image:
    """Return one image with all `images` in a grid, each fitted into a cell of (height, width) pixels.

    Without `columns` the grid is about square. Raises DataError when there is nothing to show.
    """
    if not images:
        raise DataError("no images to show")
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    gap = 4
    height, width = cell
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), _PAPER, np.uint8)
    for i, image in enumerate(images):
        fitted, _ = fit_into(image, cell)
        top = gap + i // columns * (height + gap) + (height - fitted.shape[0]) // 2
        left = gap + i % columns * (width + gap) + (width - fitted.shape[1]) // 2
        sheet[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return sheet


def annotation_sheet(annotation_set: AnnotationSet, count: int, seed: int = 0) -> Image:
    """Return a sheet of `count` images drawn at random, with their annotated boxes.

    Raises DataError when there are no images or one cannot be read.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(annotation_set.images))[:count]
    cell = (480, 480)
    drawn = []
    for index in sorted(chosen):
        record = annotation_set.images[index]
        image, scale = fit_into(read_image(record.path), cell)
        points = None if record.keypoints is None else record.keypoints * np.array([scale, scale, 1], np.float32)
        boxes, categories = record.boxes_xyxy * scale, annotation_set.categories
        drawn.append(draw_boxes(image, boxes, record.labels, categories, None, points, annotation_set.keypoints))
    fitted = max((d.shape[0] for d in drawn), default=0), max((d.shape[1] for d in drawn), default=0)
    return contact_sheet(drawn, cell=fitted)


def fit_into(image: Image, cell: tuple[int, int]) -> tuple[Image, float]:
    """Return the image scaled to touch two sides of a (height, width) cell, and the scale used."""
    scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
    size = tuple(max(1, min(limit, round(n * scale))) for n, limit in zip(image.shape[1::-1], cell[::-1], strict=True))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8), scale


def _write(canvas: Image, text: str, corner: Sequence[int], color: Color, scale: float, thickness: int) -> None:
    """Write `text` on a filled background above the box corner, or below it at the image's upper edge."""
    pad = thickness + 1
    (width, height), below = cv2.getTextSize(text, _FONT, scale, thickness)
    if width + 2 * pad > canvas.shape[1]:
        scale *= max(0.1, (canvas.shape[1] - 2 * pad) / width)
        (width, height), below = cv2.getTextSize(text, _FONT, scale, thickness)
    full_width, full_height = width + 2 * pad, height + below + pad
    left = min(max(corner[0], 0), max(0, canvas.shape[1] - full_width))
    top = corner[1] - full_height if corner[1] >= full_height else corner[1]
    top = min(max(top, 0), max(0, canvas.shape[0] - full_height))
    cv2.rectangle(canvas, (left, top), (left + full_width, top + full_height), color, cv2.FILLED)
    blue, green, red = color
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 128 else (255, 255, 255)
    cv2.putText(
        canvas,
        text,
        (left + pad, top + height + pad // 2),
        _FONT,
        scale,
        ink,
        max(1, thickness // 2),
        cv2.LINE_AA,
    )
