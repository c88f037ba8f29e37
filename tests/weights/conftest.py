"""Files as other projects write them; MindSpore's are encoded here, from its schema."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

MINDSPORE = {
    torch.float32: "Float32",
    torch.float16: "Float16",
    torch.int32: "Int32",
    torch.int64: "Int64",
    torch.bool: "Bool",
}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def mindspore_value(tag: str, kind: str, dims, content: bytes, *, packed: bool = False) -> bytes:
    sizes = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, d) for d in dims)
    return field(1, field(1, tag.encode()) + field(2, sizes + field(2, kind.encode()) + field(3, content)))


def _mindspore(tensors, part_bytes: int = 1 << 30) -> bytes:
    """Encode tensors; contents longer than `part_bytes` are cut into several values of one tag."""
    content = b""
    for name, tensor in tensors.items():
        kind, dims, numbers = MINDSPORE[tensor.dtype], list(tensor.shape) or [0], tensor.contiguous().numpy().tobytes()
        for start in range(0, max(len(numbers), 1), part_bytes):
            content += mindspore_value(name, kind, dims, numbers[start : start + part_bytes])
    return content


def _save(kind: str, tensors, path: Path) -> None:
    if kind.startswith("torch"):
        torch.save({"epoch": 7, "state_dict": tensors}, path, _use_new_zipfile_serialization=kind == "torch")
    elif kind == "pickle":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))
    elif kind == "mindspore":
        path.write_bytes(_mindspore(tensors))
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"by": "someone"})


@pytest.fixture
def save(tmp_path):
    """Write tensors as a file of a kind, under a name that says nothing about it."""

    def write(kind: str, tensors) -> Path:
        path = tmp_path / "weights.bin"
        _save(kind, tensors, path)
        return path

    return write


@pytest.fixture
def put(tmp_path):
    """Write bytes, or whatever `pickle` makes of an object."""

    def write(content: object, name: str = "file.pth", protocol: int = 2) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        return path

    return write


@pytest.fixture
def write_mindspore():
    """Write tensors as a MindSpore checkpoint, large ones in parts: `write_mindspore(path, tensors, part_bytes)`."""
    return lambda path, tensors, part_bytes: path.write_bytes(_mindspore(tensors, part_bytes))


@pytest.fixture
def value():
    """Encode one value of a MindSpore checkpoint."""
    return mindspore_value


@pytest.fixture
def wire_field():
    """Encode one field of a protocol buffer."""
    return field


@pytest.fixture
def odd_tensors() -> dict[str, torch.Tensor]:
    """A strided matrix, a scalar, nothing at all, and other types than float."""
    g = torch.Generator().manual_seed(4)
    return {
        "conv.weight": torch.randn(5, 3, 7, 1, generator=g),
        "strided": torch.randn(9, 11, generator=g)[::2, 1::3].t(),
        "count": torch.tensor(12345678901),
        "nothing": torch.zeros(0, 4),
        "half": torch.randn(3, generator=g).half(),
        "flags": torch.tensor([True, False, True]),
    }


@pytest.fixture
def python2_pickle() -> bytes:
    """{'conv1_w': float32 (2, 3), 'conv1_w_momentum': ...} as Python 2 writes it in protocol 0."""
    numbers = np.array([[1.5, -2, 0], [4, 1e9, -0.25]], "<f4").tobytes()
    content = "".join(f"\\x{byte:02x}" for byte in numbers)

    def array(memo: int) -> str:
        return (
            f"cnumpy.core.multiarray\n_reconstruct\np{memo}\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI3\ntcnumpy\ndtype\n"
            f"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'{content}'\ntb"
        )

    return f"(dp0\nS'conv1_w'\n{array(1)}sS'conv1_w_momentum'\n{array(2)}s.".encode("ascii")
