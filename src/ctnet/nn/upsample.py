"""Depthwise up-sampling, initialised as bilinear interpolation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctnet.ops import depthwise_upsample


class DepthwiseUpsample(nn.Module):
    """`factor` times the resolution by a depthwise transposed convolution: (N,C,H,W) to (N,C,f*H,f*W).

    It starts as bilinear interpolation and is trained like any weight ("Objects as Points", section 5). `kernel` is
    twice the factor; CenterFace's is no larger than the factor, and starts by spreading pixels.
    """

    def __init__(self, channels: int, factor: int, kernel: int | None = None) -> None:
        super().__init__()
        self.factor = factor
        kernel = kernel or 2 * factor
        self.padding = (kernel - factor) // 2
        self.weight = nn.Parameter(bilinear_kernel(kernel).expand(channels, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the enlarged map."""
        return depthwise_upsample(x, self.weight, self.factor, self.padding)


def bilinear_kernel(size: int) -> Tensor:
    """Return the (size,size) kernel by which a transposed convolution of stride size/2 interpolates bilinearly."""
    factor = (size + 1) // 2
    middle = (2 * factor - 1 - factor % 2) / (2 * factor)
    profile = 1 - (torch.arange(size) / factor - middle).abs()
    return profile[:, None] * profile
