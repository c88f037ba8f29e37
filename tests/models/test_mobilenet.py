"""MobileNetV2 with CenterFace's up path, against CenterFace."""

import numpy as np
import pytest
import torch

from ctnet.config import CenterNetModel
from ctnet.families import build_network
from ctnet.weights.mobilenet_names import centerface_pairs
from ctnet.weights.names import foreign_names
from originals import recipe


@pytest.fixture
def network(original_tensors):
    """Our network in float64 with CenterFace's weights."""
    network = build_network(CenterNetModel(backbone="mobilenetv2", head_channels=0), 1)
    theirs = original_tensors("centerface_mobilev2_10")
    names = foreign_names(network.state_dict(), centerface_pairs())
    assert set(theirs) - set(names.values()) == {"landmarks.weight", "landmarks.bias"}
    network.load_state_dict({ours: theirs[name] for ours, name in names.items()})
    return network.double().eval()


def test_outputs_equal_centerface_with_the_same_weights(network, golden):
    file = golden("models")
    x = torch.from_numpy(recipe.recipe_image(tuple(file["centerface_mobilev2_10/input_shape"])))
    with torch.no_grad():
        [heads] = network(x.double())
    heads["heatmap_logits"] = heads["heatmap_logits"].sigmoid()
    for ours, theirs in (("heatmap_logits", "hm"), ("size", "wh"), ("offset", "hm_offset")):
        expected = file[f"centerface_mobilev2_10/{theirs}"]
        assert np.abs(heads[ours].numpy() - expected).max() < 1e-6 * np.abs(expected).max(), theirs


def test_all_weights_are_trained():
    network = build_network(CenterNetModel(backbone="mobilenetv2", neck_channels=(24, 24, 24)), 3)
    [heads] = network(torch.randn(2, 3, 64, 96))
    assert heads["heatmap_logits"].shape == (2, 3, 16, 24)
    sum(h.square().sum() for h in heads.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
