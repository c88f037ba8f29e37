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
def picture():
    """The golden networks' input, (2,3,96,160)."""
    return torch.tensor(recipe.recipe_image((2, 3, 96, 160)))


def _varint(value):
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def _field(number, content):
    return _varint(number * 8 + 2) + _varint(len(content)) + content


MINDSPORE_TYPES = {"float32": "Float32", "float16": "Float16", "int64": "Int64", "int32": "Int32"}


def mindspore_bytes(arrays, slice_bytes=1 << 30):
    """Return a MindSpore checkpoint of (name, array); contents longer than `slice_bytes` are split."""
    content = b""
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        dims = b"".join(_varint(1 * 8) + _varint(side) for side in array.shape)
        whole = array.tobytes()
        for start in range(0, max(len(whole), 1), slice_bytes):
            tensor = dims + _field(2, MINDSPORE_TYPES[array.dtype.name].encode())
            tensor += _field(3, whole[start : start + slice_bytes])
            content += _field(1, _field(1, name.encode()) + _field(2, tensor))
    return content


@pytest.fixture(scope="session")
def write_mindspore():
    """Return `write_mindspore(path, arrays, slice_bytes)`."""
    return lambda path, arrays, slice_bytes=1 << 30: path.write_bytes(mindspore_bytes(arrays, slice_bytes))


@pytest.fixture
def original_file(original_tensors, tmp_path):
    """Return `original_file(network, keep, drop, extra)`: a .pth as the original CenterNet saves it."""

    def write(network, keep=("",), drop=None, extra=None):
        state = {k: v for k, v in original_tensors(network).items() if k.startswith(keep) and k != drop}
        path = tmp_path / f"{network}.pth"
        torch.save({"epoch": 140, "state_dict": {**state, **(extra or {})}}, path)
        return path

    return write
