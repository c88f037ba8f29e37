"""What comes out of files of every kind, and what is written."""

import pickle
import struct
import sys
import types
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ctnet.errors import StorageError, WeightsError
from ctnet.weights.containers import read_container, write_torch

KINDS = ["torch", "torch-legacy", "pickle", "mindspore", "safetensors"]
W = torch.arange(6.0).reshape(2, 3)


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert ours[name].shape == tensor.shape, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_back_the_tensors(kind, save, odd_tensors):
    container = read_container(save(kind, odd_tensors))
    assert container.kind == kind
    assert_same(dict(sorted(container.tensors.items())), dict(sorted(odd_tensors.items())))
    part, meta = {
        "torch": ("state_dict", {"epoch": 7}),
        "torch-legacy": ("state_dict", {"epoch": 7}),
        "pickle": ("model", {"__author__": "someone"}),
        "mindspore": ("", {}),
        "safetensors": ("", {"by": "someone"}),
    }[kind]
    assert (container.part, container.meta) == (part, meta)
    container.tensors["conv.weight"].add_(1)  # tensors can be written to


def test_a_safetensors_file_may_begin_like_a_zip_archive(tmp_path):
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"w": W}, file, {"note": "x" * 19190})
    assert file.read_bytes()[:4] == b"PK\0\0"  # the header's length
    assert_same(read_container(file).tensors, {"w": W})


@pytest.mark.parametrize(
    ("content", "part", "meta"),
    [
        ({"epoch": 140, "state_dict": {"w": W}}, "state_dict", {"epoch": 140}),
        ({"model": {"w": W}, "optimizer": {"m": W}, "iteration": 9}, "model", {"iteration": 9}),
        ({"model": {"state_dict": {"w": W}}, "best": 0.5}, "model.state_dict", {"best": 0.5}),
        ({"w": W, "epoch": 3}, "", {"epoch": 3}),
        ({"ema_state_dict": {"w": W}, "epoch": 3}, "ema_state_dict", {"epoch": 3}),
        ({"state_dict": {"w": W}, "ema_state_dict": {"w": W + 1, "n": 8}}, "state_dict", {"ema_state_dict": {"n": 8}}),
        ({"state_dict": {"w": W, "v": 2, "n": None}, "model": {}}, "state_dict", {"state_dict": {"v": 2}, "model": {}}),
        ({"state_dict": {"w": torch.nn.Parameter(W), 5: W}}, "state_dict", {}),
        ({"state_dict": {"w": W.numpy()}}, "state_dict", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_the_network_is_found(content, part, meta, zipped, tmp_path):
    torch.save(content, tmp_path / "f", _use_new_zipfile_serialization=zipped)
    container = read_container(tmp_path / "f")
    assert (container.part, container.meta) == (part, meta)
    assert_same(container.tensors, {"w": W})
    assert not container.tensors["w"].requires_grad


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_every_protocol(protocol, zipped, tmp_path, odd_tensors, capfd):
    """With what checkpoints hold beside tensors."""
    content = {
        "state_dict": OrderedDict(odd_tensors, tied=odd_tensors["conv.weight"], parameter=torch.nn.Parameter(W)),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": W}},
            "param_groups": [{"betas": (0.9, 0.99)}],
        },
        "meta": {"long": "x" * 300, "bytes": bytearray(b"abc"), "set": {1, 2}, "frozen": frozenset("a"), "none": None},
        "array": np.arange(6.0).reshape(2, 3).T,
        "counts": defaultdict(int, a=1 << 40, b=-5, c=1 << 70),
    }
    torch.save(content, tmp_path / "f", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    container = read_container(tmp_path / "f")
    assert container.kind == ("torch" if zipped else "torch-legacy")
    assert_same(container.tensors, {**odd_tensors, "tied": odd_tensors["conv.weight"], "parameter": W})
    assert container.tensors["tied"].data_ptr() == container.tensors["conv.weight"].data_ptr()
    assert container.meta["meta"] == {"long": "x" * 300}
    assert container.meta["counts"] == {"a": 1 << 40, "b": -5}
    assert container.meta["optimizer"] == {
        "state": {0: {}},
        "param_groups": [{"betas": [0.9, 0.99]}],
    } or container.meta["optimizer"] == {"param_groups": [{"betas": [0.9, 0.99]}]}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("code", ["f4", "f8", "i8", "u1", "?"])
def test_arrays_with_other_axes_of_protocol_5(code, put):
    array = np.arange(24).reshape(2, 3, 4).astype(code).transpose(2, 0, 1)
    container = read_container(put({"model": {"w": array}}, "w.pkl", 5))
    assert torch.equal(container.tensors["w"], torch.from_numpy(array.copy()))


def test_a_file_of_the_other_byte_order(tmp_path):
    """`torch.save` on a big-endian machine writes its numbers as they lie there."""
    torch.save({"w": W, "n": torch.tensor([1, 2], dtype=torch.int16)}, tmp_path / "f")
    with zipfile.ZipFile(tmp_path / "f") as ours, zipfile.ZipFile(tmp_path / "g", "w") as theirs:
        for name in ours.namelist():
            content = ours.read(name)
            if name.endswith("data/0"):
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            elif name.endswith("data/1"):
                content = np.frombuffer(content, "<i2").astype(">i2").tobytes()
            theirs.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert_same(read_container(tmp_path / "g").tensors, {"w": W, "n": torch.tensor([1, 2], dtype=torch.int16)})


def test_precision_and_names_are_kept(tmp_path):
    tensors = {"module.a": W.bfloat16(), "module.ema_a": W.double(), "a.b.c": W.to(torch.uint8)}
    torch.save(tensors, tmp_path / "f")
    assert_same(read_container(tmp_path / "f").tensors, tensors)


def test_what_is_plain_goes_to_meta(tmp_path):
    meta = {
        "dataset_meta": {"classes": ("cup", "Tasse\ud800"), "palette": [(1, 2, 3)]},
        "loss": np.float32(0.5),
        "steps": np.int64(7),
        "curve": np.ones(3),
        "best": float("inf"),
        "huge": 1 << 80,
        "groups": defaultdict(list, {"a": [1, None, W]}),
        "set": {1, 2},
    }
    torch.save({"state_dict": {"w": W}, "meta": meta}, tmp_path / "f")
    assert read_container(tmp_path / "f").meta == {
        "meta": {
            "dataset_meta": {"classes": ["cup", "Tasse?"], "palette": [[1, 2, 3]]},
            "loss": 0.5,
            "steps": 7,
            "best": float("inf"),
            "groups": {"a": [1, None, None]},
        }
    }


def test_what_mmengine_adds_is_read_without_mmengine(tmp_path, monkeypatch):
    history = types.ModuleType("mmengine.logging.history_buffer")
    config = types.ModuleType("mmengine.config.config")

    class HistoryBuffer:
        def __init__(self):
            self._log_history, self._count_history = np.arange(3.0), np.ones(3, np.int64)
            self.methods = {"mean": HistoryBuffer.mean}

        def mean(self): ...

    class ConfigDict(dict):
        def __reduce_ex__(self, protocol):
            return ConfigDict, (dict(self),)

    for module, made in ((history, HistoryBuffer), (config, ConfigDict)):
        made.__module__, made.__qualname__ = module.__name__, made.__name__
        setattr(module, made.__name__, made)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = history.__name__, "HistoryBuffer.mean"
    for name in ("mmengine", "mmengine.logging", "mmengine.config"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    content = {
        "meta": {"cfg": ConfigDict(model=ConfigDict(type="CenterNet")), "epoch": 28},
        "state_dict": OrderedDict(w=W),
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": {"iter": 9}},
    }
    torch.save(content, tmp_path / "f")
    monkeypatch.undo()
    assert "mmengine" not in sys.modules
    container = read_container(tmp_path / "f")
    assert_same(container.tensors, {"w": W})
    assert container.meta == {
        "meta": {"cfg": {"model": {"type": "CenterNet"}}, "epoch": 28},
        "message_hub": {"runtime_info": {"iter": 9}},
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_arrays_of_every_protocol(protocol, put):
    arrays = OrderedDict(
        plain=np.arange(12, dtype="f4").reshape(3, 4),
        fortran=np.asfortranarray(np.arange(12, dtype="f8").reshape(3, 4)),
        big_endian=np.arange(5, dtype=">i4"),
        nothing=np.zeros((0, 3), "f2"),
        scalar=np.array(2.5),
        flags=np.array([True, False]),
    )
    file = put({"blobs": arrays, "weight_order": ["a"], "lr": np.float64(0.5)}, "model.pkl", protocol)
    container = read_container(file)
    assert (container.kind, container.part) == ("pickle", "blobs")
    assert container.meta == {"weight_order": ["a"], "lr": 0.5}
    expected = {name: torch.from_numpy(a.astype(a.dtype.newbyteorder("="))) for name, a in arrays.items()}
    assert_same(container.tensors, expected)


def test_python_2(python2_pickle, put):
    container = read_container(put(python2_pickle, "R-50.pkl"))
    weight = torch.tensor([[1.5, -2, 0], [4, 1e9, -0.25]])
    assert_same(container.tensors, {"conv1_w": weight, "conv1_w_momentum": weight})


@pytest.mark.parametrize("packed", [True, False])
def test_mindspore_joins_the_parts_of_a_tensor(packed, put, value, wire_field):
    whole = W.numpy().tobytes()
    content = b"".join(
        [
            value("network.w", "Float32", [2, 3], whole[:8], packed=packed),
            value("network.w", "Float32", [2, 3], whole[8:], packed=packed),
            value("step", "Int32", [0], struct.pack("<i", 5), packed=packed),
            value("rate", "Float64", [], struct.pack("<d", 0.125), packed=packed),
            value("low", "BFloat16", [2], W.bfloat16()[0, 1:].view(torch.uint8).numpy().tobytes(), packed=packed),
            value("none", "Float32", [0], b"", packed=packed),
            value("flags", "Bool", [2], b"\x02\x00", packed=packed),
            value("words", "str", [0], "größe".encode("utf-32-le"), packed=packed),
            value("random_op", "random_op", [], b"anything", packed=packed),
            wire_field(9, 3) + wire_field(10, b"a field of a later version"),
        ]
    )
    trailer = b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    for end in (b"", trailer):
        container = read_container(put(content + end, "net.ckpt"))
        assert container.meta == {"words": "größe"}
        assert_same(
            container.tensors,
            {
                "network.w": W,
                "step": torch.tensor(5, dtype=torch.int32),
                "rate": torch.tensor(0.125, dtype=torch.float64),
                "low": torch.tensor([1, 2], dtype=torch.bfloat16),
                "none": torch.zeros(0),
                "flags": torch.tensor([True, False]),
            },
        )
    with pytest.raises(WeightsError, match=r"checksum"):
        read_container(put(content.replace(b"step", b"stop") + trailer, "net.ckpt"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_tensors_of_a_zip_stay_in_the_file(save):
    file = save("torch", {"w": torch.ones(1 << 16)})
    tensor = read_container(file).tensors["w"]
    at = tensor.data_ptr()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    assert any(int(low, 16) <= at < int(high, 16) for low, high in (m[0].split("-") for m in maps))
    tensor.zero_()
    assert read_container(file).tensors["w"].sum() == 1 << 16


def test_what_is_written_reads_back(tmp_path, odd_tensors):
    file = tmp_path / "new" / "model.pth"
    write_torch(file, odd_tensors, epoch=3, meta={"CLASSES": ["cup"]})
    container = read_container(file)
    assert (container.kind, container.part) == ("torch", "state_dict")
    assert container.meta == {"epoch": 3, "meta": {"CLASSES": ["cup"]}}
    assert_same(container.tensors, odd_tensors)
    assert list(torch.load(file)) == ["epoch", "meta", "state_dict"]
    first = file.read_bytes()
    write_torch(file, odd_tensors, epoch=3, meta={"CLASSES": ["cup"]})
    assert file.read_bytes() == first
    write_torch(file, {"w": torch.zeros(1000, 1000)[:2, :3]}, part="model")
    assert file.stat().st_size < 4000
    assert read_container(file).part == "model"
    write_torch(file, {"w": W}, part="")
    assert read_container(file).part == ""
    assert [p.name for p in file.parent.iterdir()] == ["model.pth"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write_torch(tmp_path / "file" / "model.pth", {"w": W})
