"""MobileNetV2 with CenterFace's up path; its numbers are compared in `test_originals.py`."""

import torch

from ctnet.config import CenterNetModel
from ctnet.families import build_network


def test_all_weights_are_trained():
    network = build_network(CenterNetModel(backbone="mobilenetv2", neck_channels=(24, 24, 24)), 3)
    [heads] = network(torch.randn(2, 3, 64, 96))
    assert heads["heatmap_logits"].shape == (2, 3, 16, 24)
    sum(h.square().sum() for h in heads.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
