"""Whole networks against the original, and their shapes."""

import re
from functools import partial

import pytest
import torch

from ctnet.config import Model
from ctnet.models.build import build_network

NETWORKS = {
    "resdcn_18": Model(),
    "res_18": Model(neck="plain", neck_channels=(256, 256, 256)),
}


def original_name(name: str, *, deform: bool) -> str:
    """Return the name that the original network gives to one of our tensors."""
    stage = re.match(r"neck\.(\d)\.(\w+)\.(.*)", name)
    if stage:
        places = {"deform": 0, "deform_norm": 1, "up": 3, "up_norm": 4} if deform else {"up": 0, "up_norm": 1}
        place = (6 if deform else 3) * int(stage[1]) + places[stage[2]]
        return f"deconv_layers.{place}.{stage[3].replace('offset_mask', 'conv_offset_mask')}"
    return name.removeprefix("backbone.")


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_original_with_the_same_weights(name, original):
    model = NETWORKS[name]
    network = build_network(model, 80)
    theirs = original(name, partial(original_name, deform=model.neck == "deform"))
    assert {theirs.name_of(key) for key in network.state_dict()} == theirs.keys
    theirs.assert_outputs_equal(theirs.fill(network))


def test_gradients_of_the_deformable_network_equal_the_original(original, shared):
    theirs = original("resdcn_18", partial(original_name, deform=True))
    theirs.assert_gradients_equal(theirs.fill(build_network(Model(), 80)), shared)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "resnet101"])
def test_deeper_trunks_keep_the_output_stride(backbone):
    network = build_network(Model(backbone=backbone), 3).eval()
    with torch.no_grad():
        heads = network(torch.zeros(1, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in heads.items()} == {
        "heatmap_logits": (1, 3, 16, 24),
        "size": (1, 2, 16, 24),
        "offset": (1, 2, 16, 24),
    }


def test_options_of_the_heads():
    network = build_network(Model(class_specific_size=True, predict_offset=False), 5).eval()
    with torch.no_grad():
        heads = network(torch.zeros(1, 3, 32, 64))
    assert set(heads) == {"heatmap_logits", "size"}
    assert heads["size"].shape == (1, 10, 8, 16)


def test_a_fresh_network_says_a_tenth_everywhere():
    torch.manual_seed(0)
    network = build_network(Model(), 4)
    with torch.no_grad():
        probability = network(torch.randn(2, 3, 64, 64))["heatmap_logits"].sigmoid()
    assert 0.05 < probability.mean() < 0.2
