"""Max-pooling as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctnet.ops.max_pool import max_pool2d
from ctnet.ops.table import OPERATORS


class MaxPool2d(nn.MaxPool2d):
    """torch's layer with a square window; in training it calls the kernel of the device if there is one."""

    def __init__(self, kernel: int, stride: int | None = None, padding: int = 0) -> None:
        super().__init__(kernel, stride, padding)
        self.window = (kernel, kernel if stride is None else stride, padding)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N,C,Ho,Wo)."""
        if self.by_kernel(input):
            return max_pool2d(input, *self.window)[0]
        output: Tensor = super().forward(input)
        return output

    def by_kernel(self, input: Tensor) -> bool:
        """Return whether the kernel computes this call. torch.compile has its own."""
        return (
            self.training
            and not torch.compiler.is_compiling()
            and OPERATORS["max_pool2d"].runs_for(input)
            and input.is_contiguous(memory_format=torch.channels_last)
        )
