"""The one affine map between an image and the network's input, and its inverse.

A view of an image is a centre and a scale, both in image pixels: the scale is the length that becomes the width
of the output. The matrix follows from three point pairs (CenterNet's definition), computed as there in float32, so
that boxes land on the same cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from ctnet.limits import WARP_BYTES, WARP_SIDE
from ctnet.types import Float32

Matrix = NDArray[np.float64]
Size = tuple[int, int]

_TILE = 16_384  # pixels along a side: of both sides, and three channels, well below WARP_BYTES


def affine_matrix(
    center: ArrayLike,
    scale: float,
    out_wh: Sequence[float],
    *,
    rotate_deg: float = 0.0,
    inverse: bool = False,
) -> Matrix:
    """Return the (2,3) float64 map from image to output pixels, or back when `inverse`.

    `scale` image pixels become `out_wh[0]` output pixels.
    """
    angle = np.pi * rotate_deg / 180
    up = scale * -0.5
    direction = np.array([-up * np.sin(angle), up * np.cos(angle)], np.float32)
    source = _triangle(np.asarray(center, np.float32), direction)
    middle = np.array([out_wh[0] * 0.5, out_wh[1] * 0.5], np.float32)
    target = _triangle(middle, np.array([0, out_wh[0] * -0.5], np.float32))
    pair = (target, source) if inverse else (source, target)
    return np.asarray(cv2.getAffineTransform(*pair), np.float64)


def _triangle(point: Float32, direction: Float32) -> Float32:
    second = point + direction
    side = point - second
    third = second + np.array([-side[1], side[0]], np.float32)
    return np.stack([point, second, third]).astype(np.float32)


def transform_points(points: NDArray[np.floating], matrix: Matrix) -> NDArray[np.float64]:
    """Return (N,2) points mapped by a (2,3) matrix."""
    with np.errstate(invalid="ignore", over="ignore"):  # detections of weights that diverged
        return points @ matrix[:, :2].T + matrix[:, 2]


def transform_boxes(boxes_xyxy: NDArray[np.floating], matrix: Matrix) -> Float32:
    """Return (N,4) boxes whose two corners are mapped by a (2,3) matrix, as float32; right for unrotated maps."""
    return transform_points(boxes_xyxy.reshape(-1, 2), matrix).reshape(-1, 4).astype(np.float32)


@dataclass(frozen=True)
class View:
    """The mapping of an image onto the network input: resized to `resized_hw`, then mapped onto `input_hw`.

    `center` and `scale` are in pixels of the resized image; `test_scale` is the resizing factor that boxes are
    divided by when they are mapped back, or those of width and height. `from_corner`: the resized image lies
    at the top left of the input as it is.
    """

    resized_hw: Size
    input_hw: Size
    center: tuple[float, float]
    scale: float
    test_scale: float | tuple[float, float]
    from_corner: bool = False

    def to_input(self) -> Matrix:
        """Return the matrix from the resized image to input pixels."""
        return affine_matrix(self.center, self.scale, self.input_hw[::-1])

    def from_input(self) -> Matrix:
        """Return the matrix from input pixels to original image pixels."""
        matrix = affine_matrix(self.center, self.scale, self.input_hw[::-1], inverse=True)
        return np.asarray(matrix / np.broadcast_to(self.test_scale, 2)[:, None])


def fixed_view(image_hw: Size, input_hw: Size, test_scale: float = 1.0) -> View:
    """Return the view that letterboxes an image into a fixed input (upstream's fix_res).

    The longer side becomes the input's width. As upstream, other test scales keep that length: a smaller image
    leaves a margin, a larger one is cut, so several scales make sense with `keep_view` only.
    """
    height, width = image_hw
    resized = (max(1, int(height * test_scale)), max(1, int(width * test_scale)))
    center = (resized[1] / 2, resized[0] / 2)
    return View(resized, input_hw, center, float(max(height, width)), test_scale)


def enlarged(image_size: Size, factor: float, multiple: int) -> Size:
    """Return the test input (height, width): `image_size` times the factor, in whole multiples of `multiple`."""
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in image_size)
    return height, width


def keep_view(image_hw: Size, test_scale: float = 1.0, pad: int = 31) -> View:
    """Return the view that keeps resolution and pads each side to `(side | pad) + 1` (upstream's keep_res)."""
    resized = (max(1, int(image_hw[0] * test_scale)), max(1, int(image_hw[1] * test_scale)))
    padded = ((resized[0] | pad) + 1, (resized[1] | pad) + 1)
    center = (float(resized[1] // 2), float(resized[0] // 2))
    return View(resized, padded, center, float(padded[1]), test_scale)


def stretched_view(image_hw: Size, test_scale: float = 1.0, multiple: int = 32) -> View:
    """Return the view that stretches an image to sides rounded up to multiples (CenterFace's ONNX file)."""
    height, width = (-(-max(1, int(side * test_scale)) // multiple) * multiple for side in image_hw)
    factors = width / image_hw[1], height / image_hw[0]
    return View((height, width), (height, width), (width / 2, height / 2), float(width), factors)


def short_side_view(image_hw: Size, short: float, long: float, multiple: int) -> View:
    """Return the view whose shorter side is `short`, or less so that the longer is at most `long` (detectron2).

    It is padded at the right and the bottom to multiples of `multiple`.
    """
    factor = short / min(image_hw)
    if max(image_hw) * factor > long:
        factor = factor * long / (max(image_hw) * factor)
    height, width = (max(1, int(side * factor + 0.5)) for side in image_hw)
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    factors = (width / image_hw[1], height / image_hw[0])
    return View((height, width), padded, (padded[1] / 2, padded[0] / 2), float(padded[1]), factors, from_corner=True)


def render_view(image: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Return the rendered view (H,W,3) of size `input_hw`, black outside the image."""
    if view.from_corner:
        canvas = np.zeros((*view.input_hw, 3), np.uint8)
        canvas[: view.resized_hw[0], : view.resized_hw[1]] = resize_smoothly(image, view.resized_hw)
        return canvas
    if image.shape[:2] != view.resized_hw:
        image = np.asarray(cv2.resize(image, view.resized_hw[::-1]), np.uint8)
    return warp(image, view.to_input(), view.input_hw)


def resize_smoothly(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return the image (H,W,3) resized, bilinear over all pixels that a new one covers, as Pillow does it."""
    if image.shape[:2] == size:
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(tensor, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def magnification(matrix: Matrix) -> float:
    """Return the side of a mapped unit square, averaged over directions."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def after_enlarging(matrix: Matrix, across: float, down: float | None = None) -> Matrix:
    """Return the map for an image decoded to 1/factor of its sides: enlarge it, then map as `matrix` does.

    The factors are those of the width and the height, equal unless the second is given. A small pixel's middle is the
    middle of the pixels that it stands for.
    """
    down = across if down is None else down
    enlarge = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    return np.asarray(matrix @ enlarge)


def warp(
    image: NDArray[np.uint8], matrix: Matrix, out_hw: Size, canvas: tuple[int, int, int] = (0, 0, 0)
) -> NDArray[np.uint8]:
    """Return the image (H,W,3) mapped by `matrix` onto a canvas of one colour, bilinear.

    An image beyond what OpenCV warps, by sides or bytes, is made smaller by a whole factor first; an output of long
    sides is made of tiles.
    """
    factor = max(-(-max(image.shape[:2]) // WARP_SIDE.most), math.isqrt(image.nbytes // (WARP_BYTES.most + 1)) + 1)
    if factor > 1:  # OpenCV 4 refuses such sides, and OpenCV 5 ends the process at such sizes
        height, width = image.shape[:2]
        small = (-(-width // factor), -(-height // factor))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = after_enlarging(matrix, width / small[0], height / small[1])
    if max(out_hw) <= _TILE:
        return np.asarray(
            cv2.warpAffine(image, matrix, out_hw[::-1], flags=cv2.INTER_LINEAR, borderValue=canvas), np.uint8
        )  # fmt: skip
    out = np.empty((*out_hw, image.shape[2]), np.uint8)
    for top, left in itertools.product(*(range(0, side, _TILE) for side in out_hw)):
        tile = out[top : top + _TILE, left : left + _TILE]
        there = matrix - np.array([[0, 0, left], [0, 0, top]])
        tile[:] = cv2.warpAffine(image, there, tile.shape[1::-1], flags=cv2.INTER_LINEAR, borderValue=canvas)
    return out
