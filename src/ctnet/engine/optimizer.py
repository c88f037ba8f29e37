"""Optimizers over a network's parameters, and the average of weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ctnet.config import Optimizer
from ctnet.engine.muon import Muon, hidden_kernels
from ctnet.nn import DeformConv2d


def build_optimizer(
    network: nn.Module, settings: Optimizer, lr: float, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return the optimizer at rate `lr`; `fused` where the device updates all weights in one pass.

    Each group's `lr_scale` is its rate relative to the others': below 1 for the side convolutions of deformable
    layers. Only weights with two or more dimensions decay, unless the settings include those of one, or those whose
    names `settings.decay` fits. What Muon makes orthogonal is in groups marked so.
    """
    deformable = [m for m in network.modules() if isinstance(m, DeformConv2d)]
    side = {id(p) for layer in deformable for p in layer.offset_mask.parameters()}
    hidden = {id(p) for p in hidden_kernels(network)} - side if settings.name == "muon" else set()
    spared = _of_norms(network) if settings.decay_biases else {id(p) for p in network.parameters() if p.dim() <= 1}
    groups: dict[tuple[bool, bool, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        slow, orthogonal = id(parameter) in side, id(parameter) in hidden
        flat = id(parameter) in spared if settings.decay is None else not _fits(name, settings.decay)
        kind = {
            "weight_decay": 0.0 if flat else settings.weight_decay,
            "lr_scale": settings.offset_lr if slow else 1.0,
            "orthogonal": orthogonal,
        }
        groups.setdefault((slow, flat, orthogonal), {"params": [], **kind})["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups)]
    if settings.name == "sgd":
        return torch.optim.SGD(ordered, lr=lr, momentum=settings.momentum, fused=fused)
    if settings.name == "adam":
        return torch.optim.Adam(ordered, lr=lr, betas=settings.betas, eps=settings.eps, fused=fused)
    if settings.name == "muon":
        return Muon(ordered, lr, betas=settings.betas, eps=settings.eps, momentum=settings.momentum, fused=fused)
    return torch.optim.AdamW(ordered, lr=lr, betas=settings.betas, eps=settings.eps, fused=fused)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    """Return whether the last pattern that fits a name includes it."""
    fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern.removeprefix("!"))]
    return bool(fitting) and not fitting[-1].startswith("!")


def _of_norms(network: nn.Module) -> set[int]:
    norms = (m for m in network.modules() if isinstance(m, (nn.modules.batchnorm._NormBase, nn.GroupNorm)))
    return {id(parameter) for norm in norms for parameter in norm.parameters()}


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a `state_dict`, also one from another kind of device; flags such as `fused` keep their values here.

    Raises ValueError, KeyError or TypeError for averages that are not of these weights.
    """
    rules = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    groups = [
        {**rule, "params": group["params"], "lr": float(group["lr"])}  # a run that is at its end saves it as it was
        for group, rule in zip(saved["param_groups"], rules, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for parameter, state in optimizer.state.items():
        if state and set(state) not in _STATES:
            raise ValueError(f"the averages {', '.join(map(str, state))}")
        for name, value in state.items():
            sized = isinstance(value, Tensor) and value.is_floating_point()
            if value is not None and not (sized and value.shape in (parameter.shape, ()) if name != "step" else sized):
                raise ValueError(f"{name} of another form than its weight {tuple(parameter.shape)}")
            # one pass over memory takes weights and averages in the order they lie in, which may be another there
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


_STATES = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}, {"step", "momentum"})
"""state of Adam, SGD and Muon per weight"""


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
