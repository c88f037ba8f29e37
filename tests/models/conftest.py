"""Whole networks against the original: weights rebuilt from the names that the original gives them."""

import importlib.util
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

_spec = importlib.util.spec_from_file_location("recipe", Path(__file__).parents[1] / "golden" / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

HEADS = {"heatmap_logits": "hm", "size": "wh", "offset": "reg"}


class Original:
    """The original's weights, inputs and numbers; `name_of` turns one of our tensor names into the original's."""

    def __init__(self, golden, name, name_of):
        self.file, self.name = golden("models"), name
        self.keys = set(self.file[f"{name}/keys"])
        self._name_of = name_of

    def name_of(self, key):
        for ours, theirs in HEADS.items():
            key = key.replace(f"heads.{ours}", theirs)
        return self._name_of(key)

    def fill(self, network):
        """Give our network the original's weights, and return it in float64."""
        own = network.state_dict()
        filled = {k: recipe.recipe_tensor(self.name_of(k), v.shape, v.is_floating_point()) for k, v in own.items()}
        network.load_state_dict({k: torch.tensor(v) for k, v in filled.items()})
        return network.double()

    def assert_outputs_equal(self, network):
        network.eval()
        with torch.no_grad():
            heads = network(torch.tensor(recipe.recipe_image((2, 3, 96, 160))).double())
        for ours, original in HEADS.items():
            expected = self.file[f"{self.name}/{original}"]
            got = heads[ours].numpy()[:, :: 10 if original == "hm" else 1]
            assert np.abs(got - expected).max() < 1e-6 * np.abs(expected).max(), original

    def assert_gradients_equal(self, network, shared):
        expected = json.loads((shared / "golden" / "models" / f"{self.name}.json").read_text())["train"]
        network.train()
        heads = network(torch.tensor(recipe.recipe_image(tuple(expected["input_shape"]))).double())
        loss = 0.0
        for ours, original in HEADS.items():
            seed = zlib.crc32(f"loss/{original}".encode())
            factor = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(heads[ours].shape))
            loss = loss + (heads[ours] * torch.tensor(factor)).sum()
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
        for key, parameter in network.named_parameters():
            norm = expected["grad_norm"][self.name_of(key)]
            if norm > 1e-6:
                assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), key


@pytest.fixture
def original(golden):
    """Return `original(name, name_of)`."""
    return lambda name, name_of: Original(golden, name, name_of)
