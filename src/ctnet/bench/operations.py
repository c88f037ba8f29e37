"""Operation counts of networks, and networks with random weights to time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ctnet.config import Model
from ctnet.families import build_network
from ctnet.models.heads import Heads
from ctnet.nn import DeformConv2d
from ctnet.ops.table import flop_formulas
from ctnet.types import KeypointSchema


def operations(network: nn.Module, x: Tensor) -> int:
    """Return the operations (a multiply-add is two) of all convolutions, deformable ones as if they were ordinary."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        network(x)
    return int(counter.get_total_flops())


def operations_per_image(
    model: Model, num_classes: int, image_size: tuple[int, int], keypoints: KeypointSchema | None = None
) -> int:
    """Return the operations of the recipe's network on one image of (height, width). Nothing is computed."""
    with FakeTensorMode():
        return operations(build_network(model, num_classes, keypoints).eval(), torch.empty(1, 3, *image_size))


def random_network(model: Model, num_classes: int, seed: int = 0, keypoints: KeypointSchema | None = None) -> nn.Module:
    """Return the recipe's network with random weights that let numbers flow as after training.

    Deformable layers have offsets of a fraction of a cell, heads have large weights and norms the statistics of smooth
    noise, so that nothing vanishes or explodes in any precision. The state of torch's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(model, num_classes, keypoints)
        momenta = {m: m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
        for norm in momenta:
            nn.init.uniform_(norm.weight, 0.5, 1.0)
            norm.momentum = 0.7  # no variance ends near zero, whatever one small map has
        for module in network.modules():
            if isinstance(module, DeformConv2d):
                side = module.offset_mask.weight
                nn.init.normal_(side, 0, 0.3 / math.sqrt(side[0].numel()))
            if isinstance(module, nn.ConvTranspose2d):
                module.reset_parameters()  # a fresh neck's maps are smooth, so that peaks are few and nearly tie
            if isinstance(module, Heads):
                for layer in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
                    nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            network.train()(F.interpolate(torch.randn(2, 3, 16, 16), scale_factor=8, mode="bilinear"))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    return network.eval()
