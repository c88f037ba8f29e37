"""Whatever people have of an image, as BGR uint8 (H,W,3)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ctnet.data.draw import draw_boxes, fit_into
from ctnet.data.image import Image, read_image
from ctnet.data.value_range import ValueRange, to_eight_bits
from ctnet.errors import DataError
from ctnet.families import Family
from ctnet.types import Category, Detections

ColorOrder = Literal["bgr", "rgb"]

TAKEN = (
    "a path, a PIL image, an array (H,W), (H,W,1), (H,W,3) or (H,W,4) of uint8, uint16 or floating numbers, a tensor "
    "(3,H,W) with color_order, or several of these"
)
_SCREEN = (1024, 1024)


@dataclass(frozen=True)
class Shown:
    """An image as it was given, read again where that was a path, and what the detector knows of its objects."""

    given: Any
    color_order: ColorOrder | None
    categories: tuple[Category, ...]
    family: Family
    value_range: ValueRange | None = None

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The names of the objects' key points, none without key points."""
        return self.family.keypoints.names if self.family.keypoints else ()

    def image(self) -> Image:
        """Return the image. Raises DataError, naming what is taken, for anything else than one."""
        return as_image(self.given, self.color_order, self.value_range)

    def plot(self, found: Detections, image: Any = None) -> NDArray[np.uint8]:
        """Return the image, or another one that is given, with the detections drawn."""
        canvas = self.image() if image is None else as_image(image, self.color_order, self.value_range)
        schema = self.family.keypoints
        boxes, points = found.boxes_xyxy, found.keypoints
        drawn = draw_boxes(canvas, boxes, found.labels, self.categories, found.scores, points, schema)
        self.family.draw(drawn, found)
        return drawn

    def png(self, found: Detections) -> bytes:
        """Return a PNG of `plot` with sides of at most 1024 pixels."""
        drawn = self.plot(found)
        if max(drawn.shape) > max(_SCREEN):
            drawn, _ = fit_into(drawn, _SCREEN)
        return bytes(cv2.imencode(".png", drawn)[1])


def each_image(given: Any) -> Iterator[Any]:
    """Yield the images of what was given: one, a batch, or anything that can be iterated over."""
    if isinstance(given, str | os.PathLike) or _is_pil(given):
        yield given
    elif isinstance(given, np.ndarray | torch.Tensor):
        yield from given if given.ndim == 4 else [given]
    elif isinstance(given, Iterable) and not isinstance(given, Mapping | bytes | bytearray):
        yield from given
    else:
        yield given  # and is refused, in one place


def as_image(given: Any, color_order: ColorOrder | None = None, value_range: ValueRange | None = None) -> Image:
    """Return one image as (H,W,3) BGR uint8; `color_order` is that of arrays (BGR unless stated) and tensors.

    Floating numbers are taken as 0..1 when none is larger than 1, else as 0..255; uint16 is scaled as `read_image`
    scales such files. `value_range` are other values that become 0 and 255, but for uint8.
    Raises DataError, saying what is taken, for anything else.
    """
    if color_order not in (None, "bgr", "rgb"):
        raise _refused("color_order is not as it must be", color_order, expected="bgr or rgb")
    if isinstance(given, str | os.PathLike):
        return read_image(Path(given), value_range=value_range)
    if given is None:
        raise _refused("an image is None", None, hint="cv2.imread returns it; ctnet.read_image says what is wrong")
    if _is_pil(given):
        return _from_pil(given, value_range)
    if isinstance(given, torch.Tensor):
        given, order = _from_tensor(given, color_order), color_order or "bgr"
    elif isinstance(given, np.ndarray):
        order = color_order or "bgr"
    else:
        raise _refused("this is no image", type(given).__name__)
    return _bgr(_eight_bits(given, value_range), order)


def _is_pil(given: Any) -> bool:
    module = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    return module is not None and isinstance(given, module.Image)


def _from_pil(given: Any, value_range: ValueRange | None) -> Image:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(given)
    if upright.mode.startswith(("I", "F")):  # more than eight bits
        return _bgr(_eight_bits(np.asarray(upright), value_range), "rgb")
    return _bgr(np.asarray(upright.convert("RGB")), "rgb")


def _from_tensor(given: torch.Tensor, color_order: ColorOrder | None) -> NDArray[Any]:
    if given.ndim != 3 or given.shape[0] not in (1, 3, 4):
        raise _refused("a tensor is not (C,H,W)", tuple(given.shape))
    if given.shape[0] > 1 and color_order is None:
        raise _refused("a tensor does not say the order of its colours", tuple(given.shape), hint="color_order='rgb'")
    given = given.detach().cpu()
    return (given.float() if given.is_floating_point() else given).permute(1, 2, 0).numpy()


def _eight_bits(array: NDArray[Any], value_range: ValueRange | None) -> NDArray[np.uint8]:
    kind = array.dtype.kind
    if array.size == 0:
        raise _refused("an image has no pixels", array.shape)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16 or (value_range and kind in "uif"):
        return to_eight_bits(array, value_range)[0]
    low, high = (array.min(), array.max()) if kind in "uif" else (np.nan, np.nan)
    if not (low >= 0 and high <= 255):  # also for NaN
        what = f"{array.dtype} from {low} to {high}" if kind in "uif" else str(array.dtype)
        raise _refused("the values of an image are not those of pixels", what, hint="0..255, or 0..1 in floats")
    scaled = array * 255.0 if kind == "f" and high <= 1 else array
    return np.asarray(np.rint(scaled), np.uint8)


def _bgr(array: NDArray[np.uint8], order: ColorOrder) -> Image:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "channels come last in arrays: image.transpose(1, 2, 0)" if array.shape[0] in (1, 3, 4) else None
        raise _refused("an array is no image", array.shape, hint=hint)
    colors = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    return np.ascontiguousarray(colors[:, :, ::-1] if order == "rgb" else colors)


def _refused(message: str, got: object, hint: str | None = None, expected: str = TAKEN) -> DataError:
    return DataError(message, got=str(got), expected=expected, hint=hint)
