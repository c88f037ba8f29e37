"""Whole networks against the original, and their shapes."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.config import Model
from ctnet.models.build import build_network

_spec = importlib.util.spec_from_file_location("recipe", Path(__file__).parents[1] / "golden" / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

HEADS = {"heatmap_logits": "hm", "size": "wh", "offset": "reg"}
NETWORKS = {
    "resdcn_18": Model(),
    "res_18": Model(neck="plain", neck_channels=(256, 256, 256)),
}


def original_name(name: str, deform: bool) -> str:
    """Return the name that the original network gives to one of our tensors."""
    stage = re.match(r"neck\.(\d)\.(\w+)\.(.*)", name)
    if stage:
        places = {"deform": 0, "deform_norm": 1, "up": 3, "up_norm": 4} if deform else {"up": 0, "up_norm": 1}
        place = (6 if deform else 3) * int(stage[1]) + places[stage[2]]
        return f"deconv_layers.{place}.{stage[3].replace('offset_mask', 'conv_offset_mask')}"
    for ours, theirs in HEADS.items():
        name = name.replace(f"heads.{ours}", theirs)
    return name.removeprefix("backbone.")


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_original_with_the_same_weights(name, golden):
    file = golden("models")
    deform = NETWORKS[name].neck == "deform"
    network = build_network(NETWORKS[name], 80)
    own = network.state_dict()
    theirs = {key: original_name(key, deform) for key in own}
    assert set(theirs.values()) == set(file[f"{name}/keys"])
    filled = {k: recipe.recipe_tensor(theirs[k], v.shape, v.is_floating_point()) for k, v in own.items()}
    network.load_state_dict({k: torch.tensor(v) for k, v in filled.items()})
    network.double().eval()
    with torch.no_grad():
        heads = network(torch.tensor(recipe.recipe_image((2, 3, 96, 160))).double())
    for ours, original in HEADS.items():
        expected = file[f"{name}/{original}"]
        got = heads[ours].numpy()[:, :: 10 if original == "hm" else 1]
        assert np.abs(got - expected).max() < 1e-6 * np.abs(expected).max(), original


def test_gradients_of_the_deformable_network_equal_the_original(shared):
    import json
    import zlib

    expected = json.loads((shared / "golden" / "models" / "resdcn_18.json").read_text())["train"]
    network = build_network(Model(), 80)
    own = network.state_dict()
    names = {key: original_name(key, True) for key in own}
    network.load_state_dict(
        {k: torch.tensor(recipe.recipe_tensor(names[k], v.shape, v.is_floating_point())) for k, v in own.items()}
    )
    network.double().train()
    heads = network(torch.tensor(recipe.recipe_image((2, 3, 128, 128))).double())
    loss = 0.0
    for ours, original in HEADS.items():
        seed = zlib.crc32(f"loss/{original}".encode())
        factor = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(heads[ours].shape))
        loss = loss + (heads[ours] * torch.tensor(factor)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    for key, parameter in network.named_parameters():
        norm = expected["grad_norm"][names[key]]
        if norm > 1e-6:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), key


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
