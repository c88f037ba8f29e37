"""Batch normalisation, with the shortcut and the ReLU that follow it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.ops.batch_norm import batch_norm
from ctnet.ops.table import OPERATORS


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm, then an optional shortcut and ReLU; parameters and buffers are those of torch.

    In training, one kernel computes all three where the device has it; otherwise three of torch's operators do.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float | None = 0.1, *, relu: bool = False) -> None:
        super().__init__(channels, eps, momentum)
        self.relu = relu

    def forward(self, input: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return (N,C,H,W)."""
        if self.fuses(input, shortcut):
            return self._by_kernel(input, shortcut)
        output = self.normalise(input)
        if shortcut is not None:
            output = output + shortcut
        return F.relu(output, inplace=True) if self.relu else output

    def normalise(self, input: Tensor) -> Tensor:
        """Return the norm alone, by torch."""
        return super().forward(input)

    def fuses(self, input: Tensor, shortcut: Tensor | None) -> bool:
        """Return whether the kernel computes this call; torch.compile fuses torch's operators instead."""
        return (
            self.training
            and self.momentum is not None
            and not torch.compiler.is_compiling()
            and OPERATORS["batch_norm"].runs_for(input)
            and input.is_contiguous(memory_format=torch.channels_last)
            and input.numel() > input.shape[1]
            and (shortcut is None or (shortcut.dtype == input.dtype and shortcut.shape == input.shape))
        )

    def _by_kernel(self, input: Tensor, shortcut: Tensor | None) -> Tensor:
        output, mean, variance = batch_norm(input, self.weight, self.bias, shortcut, relu=self.relu, eps=self.eps)
        cells = input.numel() // input.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (cells / (cells - 1)), self.momentum)
        return output
