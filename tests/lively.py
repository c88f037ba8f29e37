"""Random networks whose outputs differ from cell to cell, unlike those of fresh ones, which are smooth."""

import torch
from torch import nn

from ctnet.nn import DeformConv2d


def lively(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Return the network, for evaluation, with moving offsets, and with norms and heads that keep the signal up."""
    for layer in network.modules():
        if isinstance(layer, DeformConv2d):
            nn.init.normal_(layer.offset_mask.weight, std=0.01)
            nn.init.normal_(layer.offset_mask.bias, std=1)
        if isinstance(layer, nn.ConvTranspose2d):
            layer.reset_parameters()
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    for layer in network.heads.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, *size))
    return network.eval()
