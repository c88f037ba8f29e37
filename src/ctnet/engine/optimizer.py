"""Optimizers over a network's parameters, and the average of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ctnet.config import Optimizer


def build_optimizer(network: nn.Module, settings: Optimizer, lr: float) -> torch.optim.Optimizer:
    """Return the optimizer at rate `lr`; only weights with two or more dimensions decay."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    if settings.name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=settings.betas)
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas)


class WeightAverage:
    """An exponential moving average of a network's parameters and running statistics.

    Early updates use a smaller decay, min(decay, (1 + n) / (10 + n)), so that the random start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged, present = _float_tensors(self.network), _float_tensors(network)
        torch._foreach_lerp_(averaged, present, 1 - decay)


def _float_tensors(network: nn.Module) -> list[Tensor]:
    return [t.detach() for t in network.state_dict().values() if t.is_floating_point()]
