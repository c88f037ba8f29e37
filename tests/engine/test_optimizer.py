"""Parameter groups, the weight average, precision."""

import copy

import pytest
import torch
from torch import nn

from ctnet.config import Optimizer
from ctnet.devices import open_device
from ctnet.engine.optimizer import WeightAverage, build_optimizer, restore_optimizer
from ctnet.engine.precision import choose_precision
from ctnet.nn import DeformConv2d


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "sgd"])
def test_norms_and_biases_do_not_decay(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(network, Optimizer(name=name, weight_decay=0.1), 1e-3)
    decayed, kept = optimizer.param_groups
    assert [p.dim() for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 0.1
    assert len(kept["params"]) == 3
    assert kept["weight_decay"] == 0


def test_layers_that_predict_offsets_move_slower():
    network = nn.Sequential(DeformConv2d(3, 4), nn.Conv2d(4, 2, 1))
    groups = build_optimizer(network, Optimizer(offset_lr=0.2), 1e-3).param_groups
    slow = {id(p) for g in groups if g["lr_scale"] == 0.2 for p in g["params"]}
    assert slow == {id(p) for p in network[0].offset_mask.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "sgd"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_updates_go_on_on_a_device_that_computes_and_stores_them_otherwise(name, fused, layout):
    torch.manual_seed(0)
    x, y = torch.randn(5, 4, 7, 6), torch.randn(5, 2, 5, 4)
    other_layout = torch.contiguous_format if layout == torch.channels_last else torch.channels_last
    layers = nn.Conv2d(4, 64, 3), nn.Conv2d(64, 2, 1)
    networks = [copy.deepcopy(nn.Sequential(*layers)).to(memory_format=kind) for kind in (layout, other_layout)]
    first, other = (
        build_optimizer(network, Optimizer(name=name), 1e-2, fused=f)
        for network, f in zip(networks, (fused, not fused), strict=True)
    )

    def train(network, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x), y).backward()
            optimizer.step()

    train(networks[0], first, 3)
    networks[1].load_state_dict(networks[0].state_dict())
    restore_optimizer(other, copy.deepcopy(first.state_dict()))
    assert [group["fused"] for group in other.param_groups] == [not fused] * len(other.param_groups)
    train(networks[0], first, 4)
    train(networks[1], other, 4)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_average_follows_weights_and_statistics():
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(3)
        network.running_mean.fill_(1)
    average.update(network)
    # the first decay is 1/10, not 9/10
    assert average.network.weight.tolist() == pytest.approx([2.8, 2.8])
    assert average.network.running_mean.tolist() == pytest.approx([0.9, 0.9])
    for _ in range(500):
        average.update(network)
    assert average.network.weight.tolist() == pytest.approx([3, 3], abs=1e-3)
    assert not average.network.weight.requires_grad


def test_precision_is_chosen_with_a_reason():
    cpu = open_device("cpu")
    assert choose_precision("fp32", cpu).dtype is None
    assert choose_precision("bf16", cpu).dtype == torch.bfloat16
    automatic = choose_precision("auto", cpu)
    assert automatic.reason in automatic.sentence()
    assert choose_precision("fp16", cpu).grad_scaler().is_enabled()
    assert not choose_precision("bf16", cpu).grad_scaler().is_enabled()
