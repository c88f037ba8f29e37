"""A network compiled for inference, with weights as constants of the program."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Compiled(nn.Module):
    """The network compiled on its first call; weights are frozen in the layout of the kernels, operators are fused.

    The tracer looks for `freezing` in the settings of the process while it runs, which is on a call, and ignores the
    option of that name to `torch.compile`; without it weights stay inputs and next to nothing is fused.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = torch.compile(network)

    def forward(self, x: Tensor) -> object:
        """Return what the network returns, without gradients."""
        import torch._inductor.config as inductor  # imports take a second or more: only when compiling

        with torch.no_grad(), inductor.patch(freezing=True):
            return self.network(x)
