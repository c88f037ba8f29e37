"""Fixtures: checkpoints of other projects, built from the names and shapes that the originals have."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("recipe", GOLDEN / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)


@pytest.fixture(scope="session")
def original_tensors():
    """Return `original_tensors(network, timm=False)`: every tensor of an original network under its own names."""
    files = {False: np.load(GOLDEN / "models.npz"), True: np.load(GOLDEN / "timm.npz")}

    def build(network, *, timm=False):
        file, tensors = files[timm], {}
        for name, shape in zip(file[f"{network}/keys"].tolist(), file[f"{network}/shapes"].tolist(), strict=True):
            sides = tuple(map(int, shape.split()))
            tensors[name] = torch.tensor(recipe.recipe_tensor(name, sides, not name.endswith("num_batches_tracked")))
        return tensors

    return build


@pytest.fixture(scope="session")
def image():
    """The golden networks' input, (2,3,96,160)."""
    return torch.tensor(recipe.recipe_image((2, 3, 96, 160)))


@pytest.fixture
def original_file(original_tensors, tmp_path):
    """Return `original_file(network, keep, drop, extra)`: a .pth as the original CenterNet saves it."""

    def write(network, keep=("",), drop=None, extra=None):
        state = {k: v for k, v in original_tensors(network).items() if k.startswith(keep) and k != drop}
        path = tmp_path / f"{network}.pth"
        torch.save({"epoch": 140, "state_dict": {**state, **(extra or {})}}, path)
        return path

    return write
