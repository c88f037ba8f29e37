"""DCNv2 as a layer: a second convolution predicts the offset and the weight of each tap."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ctnet.ops import deform_conv2d


class DeformConv2d(nn.Module):
    """A 3x3 modulated deformable convolution, stride 1, padding 1, (N,C,H,W) to (N,O,H,W).

    `offset_mask` yields 27 channels a cell: nine (dy, dx) pairs in input pixels, then nine mask logits. It starts at
    zero, so a fresh layer is half an ordinary convolution plus bias.
    """

    is_convolution = True
    """a norm after it can be folded into weight and bias"""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.offset_mask = nn.Conv2d(in_channels, 27, 3, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight from +-1/sqrt(9*C) and zero the rest."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        for zero in (self.bias, self.offset_mask.weight, self.offset_mask.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` at offsets predicted from `x`."""
        side = self.offset_mask(x)
        offset, mask = side[:, :18], side[:, 18:].sigmoid()
        return deform_conv2d(x, offset, self.weight, self.bias, padding=1, mask=mask)
