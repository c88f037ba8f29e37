"""Up-sampling of every channel by a kernel of its own, bilinear to begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctnet.ops import depthwise_upsample


class DepthwiseUpsample(nn.Module):
    """`factor` times the resolution by a depthwise transposed convolution, kernel 2*factor: (N,C,H,W) to (N,C,f*H,f*W).

    It starts as bilinear interpolation and is trained like any weight ("Objects as Points", section 5).
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(bilinear_kernel(2 * factor).expand(channels, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return the enlarged map."""
        return depthwise_upsample(x, self.weight, self.factor, self.factor // 2)


def bilinear_kernel(size: int) -> Tensor:
    """Return the (size,size) kernel by which a transposed convolution of stride size/2 interpolates bilinearly."""
    factor = (size + 1) // 2
    middle = (2 * factor - 1 - factor % 2) / (2 * factor)
    profile = 1 - (torch.arange(size) / factor - middle).abs()
    return profile[:, None] * profile
