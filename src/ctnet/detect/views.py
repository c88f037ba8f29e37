"""Views of an image: rendered network inputs, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctnet.codec.affine import View, enlarged, fixed_view, keep_view, render_view, short_side_view, stretched_view
from ctnet.codec.pixels import normalise
from ctnet.config import Data, Evaluation
from ctnet.detect.tiles import Region, tile_regions


class RenderedView(NamedTuple):
    """A view and its pixels, (H,W,3) BGR uint8 of `view.input_hw`; `region` is the tile that it shows, if it is one."""

    view: View
    pixels: NDArray[np.uint8]
    region: Region | None = None


def render_views(
    image_bgr: NDArray[np.uint8], image_size: tuple[int, int], multiple: int, settings: Evaluation, bucket: int = 1
) -> list[RenderedView]:
    """Return one rendered view of the image per test scale, its sides multiples of `multiple`, then those of tiles.

    Where resolution is kept, sides are padded to multiples of `bucket` too, so that images share few sizes.
    """
    image_hw = (image_bgr.shape[0], image_bgr.shape[1])
    rendered = _render(image_bgr, image_size, multiple, settings, bucket)
    for region in tile_regions(image_hw, settings.tiles, settings.overlap) if settings.tiles else ():
        tile = image_bgr[region.y1 : region.y2, region.x1 : region.x2]
        rendered += [view._replace(region=region) for view in _render(tile, image_size, multiple, settings, bucket)]
    return rendered


def _render(
    image_bgr: NDArray[np.uint8], image_size: tuple[int, int], multiple: int, settings: Evaluation, bucket: int
) -> list[RenderedView]:
    pad = math.lcm(multiple, bucket) - 1
    image_hw = (image_bgr.shape[0], image_bgr.shape[1])
    test_hw = test_size(image_size, multiple, settings)

    def view(scale: float) -> View:
        if settings.stretch:
            return stretched_view(image_hw, scale, multiple)
        if settings.short_side is not None:
            return short_side_view(image_hw, settings.short_side * scale, settings.long_side * scale, multiple)
        return keep_view(image_hw, scale, pad) if settings.keep_res else fixed_view(image_hw, test_hw, scale)

    views = [view(scale) for scale in settings.scales]
    return [RenderedView(view, _padded(render_view(image_bgr, view), multiple)) for view in views]


def test_size(image_size: tuple[int, int], multiple: int, settings: Evaluation) -> tuple[int, int]:
    """Return the size (height, width) into which images are scaled, before it is padded to what the network divides."""
    if settings.image_size is None:
        return enlarged(image_size, settings.test_scale, multiple)
    height, width = (max(1, round(side * settings.test_scale)) for side in settings.image_size)
    return height, width


def _padded(pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Return the pixels with black below and at the right, up to whole multiples."""
    missing = [(0, -side % multiple) for side in pixels.shape[:2]]
    return np.pad(pixels, [*missing, (0, 0)]) if any(after for _, after in missing) else pixels


def network_input(views: Sequence[RenderedView], data: Data, device: torch.device, count: int | None = None) -> Tensor:
    """Return the normalised batch (N,3,H,W) of views of one size, on the device, filled up to `count` with black."""
    pixels = np.stack([view.pixels for view in views])
    if count is not None and count > len(views):
        pixels = np.pad(pixels, [(0, count - len(views)), (0, 0), (0, 0), (0, 0)])
    on_device = torch.from_numpy(pixels).to(device)
    x = normalise(on_device, data.mean, data.std, color_order=data.color_order)
    if any(view.view.from_corner for view in views):  # padded by the mean, which is 0
        height, width = image_sizes(views, device, count).view(-1, 2, 1, 1, 1).unbind(1)
        rows, columns = (torch.arange(side, device=device) for side in x.shape[2:])
        x = torch.where((rows[:, None] < height) & (columns < width), x, 0)
    return x


def image_sizes(views: Sequence[RenderedView], device: torch.device, count: int | None = None) -> Tensor:
    """Return (N,2), height and width of the part of each view that its image fills; one from the corner, or all."""
    sizes = [view.view.resized_hw if view.view.from_corner else view.view.input_hw for view in views]
    sizes += [views[-1].view.input_hw] * ((count or 0) - len(views))
    return torch.tensor(sizes, device=device)
