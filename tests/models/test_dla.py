"""DLA-34 against the original network."""

import importlib.util
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.config import load_recipe
from ctnet.errors import ConfigError
from ctnet.models.build import build_network
from ctnet.nn.upsample import bilinear_kernel

_spec = importlib.util.spec_from_file_location("recipe", Path(__file__).parents[1] / "golden" / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

HEADS = {"heatmap_logits": "hm", "size": "wh", "offset": "reg"}
UNUSED = re.compile(r"base\.level[34]\.project\.|base\.fc\.")  # in the original's files, but they feed nothing


def original_name(name: str) -> str:
    """Return the name that the original network gives to one of our tensors."""
    for ours, theirs in HEADS.items():
        name = name.replace(f"heads.{ours}", theirs)
    name = re.sub(r"root\.0\.", "root.conv.", re.sub(r"root\.1\.", "root.bn.", name))
    name = re.sub(r"neck\.rounds\.(\d)\.", r"dla_up.ida_\1.", name).replace("neck.last.", "ida_up.")
    name = re.sub(r"\.(proj|up|node)\.(\d)\.", lambda m: f".{m[1]}_{int(m[2]) + 1}.", name)
    return name.replace(".norm.", ".actf.0.").replace("offset_mask", "conv_offset_mask").replace("backbone.", "base.")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    built = build_network(load_recipe("centernet_dla34", []).recipe.model, 80)
    own = built.state_dict()
    names = {key: original_name(key) for key in own}
    filled = {k: recipe.recipe_tensor(names[k], v.shape, v.is_floating_point()) for k, v in own.items()}
    built.load_state_dict({k: torch.tensor(v) for k, v in filled.items()})
    return built.double()


def test_every_tensor_of_the_original_is_there_but_the_unused(network, golden):
    theirs = set(golden("models")["dla_34/keys"])
    ours = {original_name(key) for key in network.state_dict()}
    assert ours <= theirs
    assert all(UNUSED.match(name) for name in theirs - ours)


def test_outputs_equal_the_original_with_the_same_weights(network, golden):
    file = golden("models")
    network.eval()
    with torch.no_grad():
        heads = network(torch.tensor(recipe.recipe_image((2, 3, 96, 160))).double())
    for ours, original in HEADS.items():
        expected = file[f"dla_34/{original}"]
        got = heads[ours].numpy()[:, :: 10 if original == "hm" else 1]
        assert np.abs(got - expected).max() < 1e-6 * np.abs(expected).max(), original


def test_gradients_equal_the_original(network, shared):
    expected = json.loads((shared / "golden" / "models" / "dla_34.json").read_text())["train"]
    network.train()
    shape = tuple(expected.get("input", (2, 3, 128, 128)))
    heads = network(torch.tensor(recipe.recipe_image(shape)).double())
    loss = 0.0
    for ours, original in HEADS.items():
        seed = zlib.crc32(f"loss/{original}".encode())
        factor = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(heads[ours].shape))
        loss = loss + (heads[ours] * torch.tensor(factor)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    for key, parameter in network.named_parameters():
        norm = expected["grad_norm"][original_name(key)]
        if norm > 1e-6:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), key


def test_up_sampling_starts_bilinear():
    assert bilinear_kernel(4)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert bilinear_kernel(8)[3].tolist() == pytest.approx(
        [0.875 * w for w in (0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125)]
    )


def test_a_plain_neck_is_refused():
    with pytest.raises(ConfigError, match="deformable neck only"):
        load_recipe("centernet_dla34", ["model.neck=plain"])
