"""Eight-bit images become the network's normalised input, on the device they are on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor


def normalise(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    color_order: Literal["bgr", "rgb"] = "bgr",
    lighting: Tensor | None = None,
) -> Tensor:
    """Return float32 (N,3,H,W) of BGR images (N,H,W,3) uint8, stored channels-last where the device can.

    `(value / 255 + lighting - mean) / std`, with mean and std in `color_order`; `lighting` (N,3) is a BGR colour
    shift in units of 0..1, or (N,3,4) a matrix that is applied to the three values and a shift.
    """
    # every step keeps the memory format of the images, channels-last
    x = images.permute(0, 3, 1, 2).float() / 255
    if lighting is not None:
        if lighting.dim() == 3:
            x = torch.stack([(x * row[:, :, None, None]).sum(1) for row in lighting[:, :, :3].unbind(1)], 1)
            lighting = lighting[:, :, 3]
        x = x + lighting[:, :, None, None]
    if color_order == "rgb":
        x = x.flip(1)
    return (x - _constant(tuple(mean), x.device)) / _constant(tuple(std), x.device)


@lru_cache(maxsize=32)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (1,3,1,1) on the device, copied there once: the host waits for such a copy."""
    with torch.inference_mode(False):  # the first caller may be inference, a later one training
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
