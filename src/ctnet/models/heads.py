"""Heads: one small convolutional branch per output map."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Heads(nn.ModuleDict):
    """Branches 3x3 convolution, ReLU, 1x1 convolution; output names are those of the channels given.

    With 0 `hidden` channels a branch is the 1x1 convolution alone. Branches in `logit_bias` start at that logit
    everywhere, the others near zero.
    """

    def __init__(
        self, in_channels: int, hidden: int, channels: Mapping[str, int], logit_bias: Mapping[str, float]
    ) -> None:
        super().__init__({name: _branch(in_channels, hidden, out) for name, out in channels.items()})
        for name, branch in self.items():
            _initialise(branch, logit_bias.get(name))

    @torch.no_grad()
    def start_at_median(self, name: str, values: Tensor, labels: Tensor) -> None:
        """Initialise a branch to output the median of values (N,D), per class where classes have their own channels.

        `labels` (N,) are the classes; NaN counts nothing. From zero, boxes need hundreds of steps until they are about
        as large as objects.
        """
        bias = _convolutions(self[name])[-1].bias
        assert bias is not None
        rows = bias.view(-1, values.shape[1])
        for index, row in enumerate(rows):
            of_class = values[labels == index] if len(rows) > 1 else values
            row.copy_((of_class if len(of_class) else values).nanmedian(0).values.nan_to_num())

    def output_layers(self) -> list[nn.Conv2d]:
        """Return the layers whose outputs are maps."""
        return [_convolutions(branch)[-1] for branch in self.values()]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return every branch's raw output, (N,channels,H,W)."""
        return {name: branch(x) for name, branch in self.items()}


def _branch(in_channels: int, hidden: int, out: int) -> nn.Module:
    if hidden == 0:
        return nn.Conv2d(in_channels, out, 1)
    return nn.Sequential(nn.Conv2d(in_channels, hidden, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(hidden, out, 1))


def _convolutions(branch: nn.Module) -> list[nn.Conv2d]:
    return [m for m in branch.modules() if isinstance(m, nn.Conv2d)]


def _initialise(branch: nn.Module, logit_bias: float | None) -> None:
    convolutions = _convolutions(branch)
    if logit_bias is not None:
        assert convolutions[-1].bias is not None
        nn.init.constant_(convolutions[-1].bias, logit_bias)
        return
    for convolution in convolutions:
        nn.init.normal_(convolution.weight, std=0.001)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
