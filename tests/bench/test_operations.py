"""Counts by hand, and random networks whose numbers flow."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ctnet.bench.operations import operations, operations_per_image, random_network
from ctnet.config import load_recipe
from ctnet.devices import open_device
from ctnet.families import build_network
from ctnet.nn import DeformConv2d

NAMES = ["centernet_resdcn18", "centernet_dla34", "centernet_mobilenetv2"]


def test_convolutions_are_counted_by_their_products():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    assert operations(network, torch.zeros(2, 3, 7, 5)) == 2 * 2 * 7 * 5 * (8 * 3 * 9 + 4 * 8)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_deformable_convolution_counts_as_an_ordinary_one_and_its_side(device):
    open_device("cpu")
    x = torch.zeros(1, 6, 5, 9)
    expected = 2 * 5 * 9 * 9 * (6 * 4 + 6 * 27)
    if device == "cpu":
        assert operations(DeformConv2d(6, 4), x) == expected
    else:  # no kernel runs at all
        with FakeTensorMode() as mode:
            assert operations(DeformConv2d(6, 4), mode.from_tensor(x)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_counted_without_computing(name):
    model = load_recipe(name).recipe.model
    network = build_network(model, 3).eval()
    assert operations_per_image(model, 3, (64, 96)) == operations(network, torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize("name", NAMES)
def test_random_networks_answer_the_image_in_every_precision(name):
    device, model = open_device("cpu"), load_recipe(name).recipe.model
    network = random_network(model, 3)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        [expected] = network(x)
        for precision, bound in (("fp32", 1e-4), ("bf16", 0.05), ("fp16", 0.01)):
            ready = device.plugin.prepare(network, device.torch_device, precision=precision, compile=False).network
            for head, values in ready(x)[0].items():
                spread = expected[head].max() - expected[head].min()
                assert spread > 1e-3, head
                assert (values - expected[head]).abs().max() <= bound * spread, (precision, head)


def test_a_seed_gives_one_network_and_leaves_the_generator_alone():
    model = load_recipe("centernet_mobilenetv2").recipe.model
    before = torch.get_rng_state()
    first, second, other = (random_network(model, 3, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
