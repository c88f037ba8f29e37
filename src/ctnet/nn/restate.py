"""Batch norms with other statistics and the same outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def restate_norms(network: nn.Module, images: Tensor) -> None:
    """Give every norm the statistics that these normalised images have there; in evaluation nothing changes.

    Weights and biases take up the difference. Norms whose statistics are not those of images, because they were folded
    into convolutions, would else destroy what the network knows in the first steps of training.
    """

    def restate(norm: Any, entering: tuple[Tensor, ...]) -> None:
        mean, variance = entering[0].float().mean((0, 2, 3)), entering[0].float().var((0, 2, 3), correction=0)
        deviation = (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(norm.weight * (mean - norm.running_mean) / deviation)
        norm.weight.mul_((variance + norm.eps).sqrt() / deviation)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    was_training = network.training
    network.eval()
    hooks = [m.register_forward_pre_hook(restate) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
