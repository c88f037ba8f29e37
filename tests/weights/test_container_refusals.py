"""Bad files: one clear WeightsError each, and nothing in them runs."""

import collections
import os
import pickle
import struct
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from ctnet.errors import WeightsError
from ctnet.weights.containers import read_container

KINDS = ["torch", "torch-legacy", "pickle", "mindspore", "safetensors"]
W = torch.arange(6.0).reshape(2, 3)


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_container(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert all("\n" not in fact for fact in caught.value.facts.values())
    return caught.value


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("container", ["torch", "torch-legacy", *(f"pickle-{p}" for p in range(6))])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.system, "touch canary"), "posix.system"),
        (Call(eval, "open('canary', 'w')"), "eval"),
        (Call(np.save, "canary.npy", 1), "numpy.save"),
        (Call(np.fromfile, "x"), "fromfile"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
    ids=["system", "eval", "save", "fromfile", "module"],
)
def test_code_is_named_and_not_run(container, call, name, tmp_path):
    file = tmp_path / "file.pth"
    content = {"state_dict": {"w": np.ones(3), "x": call}}
    if container.startswith("torch"):
        torch.save(content, file, _use_new_zipfile_serialization=container == "torch")
    else:
        file.write_bytes(pickle.dumps(content, protocol=int(container[-1])))
    error = refusal(file)
    assert "nothing in it was executed" in error.message
    assert error.facts["got"].endswith(
        ("copy_reg._reconstructor", name) if container in ("pickle-0", "pickle-1") else name
    )
    assert not list(tmp_path.glob("canary*"))
    assert not list(Path().glob("canary*"))


def test_a_call_hidden_behind_a_stand_in(put, tmp_path):
    """The memo, the stack's names and attributes of what is allowed lead nowhere either."""
    for attack in (
        b"\x80\x04\x8c\x05numpy\x8c\x12core.os.system\x93\x8c\x0ctouch canary\x85R.",
        b"\x80\x02cnumpy\nndarray\n}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
        b"\x80\x02cnumpy\nndarrayX\x00\x00\x00\x00\x86b.",
        b"\x80\x02c_codecs\nencode\nN}X\x07\x00\x00\x00__doc__K\x01s\x86b.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\nK\x00\x85U\x01b\x87R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
        b"\x80\x02\x82\x01.",
        b"cos\nsystem\n(S'touch canary'\ntR.",
    ):
        refusal(put(attack))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere(kind, save, odd_tensors):
    file = save(kind, odd_tensors)
    whole = file.read_bytes()
    for size in sorted({*range(1, 40), *range(40, len(whole) - 1, max(1, len(whole) // 60)), len(whole) - 1}):
        file.write_bytes(whole[:size])
        if kind != "mindspore":
            refusal(file)
            continue
        with suppress(WeightsError):  # MindSpore's values have no end mark, so a cut between two of them goes unseen
            assert all(torch.equal(t, odd_tensors[name]) for name, t in read_container(file).tensors.items())


@pytest.mark.parametrize("kind", ["torch", "torch-legacy"])
def test_a_tensor_larger_than_its_storage(kind, tmp_path):
    torch.save(
        {"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "f", _use_new_zipfile_serialization=kind == "torch"
    )
    assert "needs 4000000000000 bytes and has 4" in refusal(tmp_path / "f").facts["got"]


def test_tensors_that_are_not_ordinary(tmp_path):
    sparse, meta = W.to_sparse(), torch.empty(3, device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(W, 0.1, 0, torch.qint8)
    for tensor in (sparse, meta, quantised):
        torch.save({"w": tensor}, tmp_path / "f")
        assert "w is no ordinary tensor" in refusal(tmp_path / "f").facts["got"]


def test_zips(save, put, tmp_path):
    whole = save("torch", {"w": torch.zeros(5000)})
    entries = zipfile.ZipFile(whole)
    for compression, text in ((zipfile.ZIP_DEFLATED, "more than its size"), (zipfile.ZIP_STORED, None)):
        with zipfile.ZipFile(tmp_path / "again.zip", "w", compression) as again:
            for name in entries.namelist():
                again.writestr(name, entries.read(name))
        if text:
            error = refusal(tmp_path / "again.zip")
            assert text in error.message
            assert {"expected", "got"} <= error.facts.keys()
    with zipfile.ZipFile(tmp_path / "again.zip", "a") as again:
        again.writestr(entries.namelist()[0].replace("data.pkl", "DATA.PKL"), b"\x80\x02N.")
    assert "two entries of one name" in str(refusal(tmp_path / "again.zip"))
    with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as mixed:
        for i, name in enumerate(entries.namelist()):
            mixed.writestr(name, entries.read(name), zipfile.ZIP_DEFLATED if i == 2 else zipfile.ZIP_STORED)
        mixed.writestr("padding", b"\0" * 1000)
        mixed.comment = b"\0" * 30000
    assert "compressed entries" in str(refusal(tmp_path / "mixed.zip"))
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as docs:
        docs.writestr("a.txt", "text")
    assert "a zip, but no torch file" in str(refusal(tmp_path / "docs.zip"))
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as script:
        for name in ("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"):
            script.writestr(name, "x")
    assert "TorchScript" in str(refusal(tmp_path / "script.pt"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_bombs_of_a_pickle(protocol, put, tmp_path):
    nested = b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"K\x01s."
    bombs = {
        "memo": (b"\x80\x02]r" + struct.pack("<I", 0xFFFFFFF0) + b".", "one object of the class list"),
        "nested": (nested, "more than 100 parts in the key"),
        "length": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", ""),
        "frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", ""),
        "itself": (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", ""),
        "empty stack": (b"\x80\x02\x85.", "lacks what it works on"),
        "no end": (b"\x80\x02N", "no end"),
        "garbage": (b"\x80\x02\xff\xfe.", "no instruction"),
    }
    for name, (content, text) in bombs.items():
        assert text in str(refusal(put(content, f"{name}.pkl")))
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
        assert text in str(refusal(tmp_path / "bomb.pth"))
    wide = {"w": np.ones(2), "a": [0]}
    for _ in range(40):
        wide["a"] = [wide["a"], wide["a"]]
    assert "more than 1,000,000 values" in str(refusal(put(wide, "wide.pkl", protocol)))


def array(shape: tuple, code: str, content: bytes, order: str = "<", fields: object = None) -> "Call":
    class Made:
        def __init__(self, call, state=None):
            self.made = (*call, state)

        def __reduce__(self):
            return self.made

    reconstruct = np.zeros(1).__reduce__()[0]
    dtype = Made((np.dtype, (code, False, True)), (3, order, None, fields, None, -1, -1, 0))
    return Made((reconstruct, (np.ndarray, (0,), b"b")), (1, shape, dtype, False, content))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (np.array([None, "x"], dtype=object), "more than numbers"),
        (np.array(["a", "b"]), "more than numbers"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]), "more than numbers"),
        (np.array(["2020-01-01"], "M8[D]"), "more than numbers"),
        (array((10**9, 10**9), "f4", b"1234"), "in 4 bytes"),
        (array((0, 1 << 62, 1 << 62), "f4", b""), ""),
        (array((-1, -1), "f4", b"1234"), "shape (-1, -1)"),
        (array((1.0,), "f4", b"1234"), "shape (1.0,)"),
        (array((1,), "f4", b"1234", order="?"), "not plain numbers"),
        (array((1,), "f4", b"1234", fields=("x",)), "not plain numbers"),
        (array((1,), "f4", [1]), "no plain bytes"),
    ],
)
def test_arrays_that_are_not_what_they_say(made, text, put):
    for protocol in (0, 2, 4):
        assert text in refusal(put({"model": {"w": made}}, "x.pkl", protocol)).facts["got"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"optimizer": {"state": {}}, "epoch": 3}, "the state of an optimizer without its network"),
        ({"epoch": 3, "state_dict": {}}, "no tensors under any known key; the keys are 'epoch', 'state_dict'"),
        ({}, "the keys are none"),
        ([1, 2], "one object of the class list"),
        (W, "one object of the class Tensor"),
        (collections.Counter("ab"), "no tensors under any known key"),
    ],
)
def test_files_without_a_network(content, text, tmp_path):
    for zipped in (True, False):
        torch.save(content, tmp_path / "f", _use_new_zipfile_serialization=zipped)
        assert text in refusal(tmp_path / "f").facts["got"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_would_steer_a_terminal(kind, save, put):
    for file, name in ((save(kind, {"b": W.clone(), "w\x1b[31m": W}), "w"), (put(b"\x80\x02cos\n\x1b[31m\n."), "os.")):
        shown = str(refusal(file))
        assert name + r"\x1b[31m" in shown
        assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("content", "got", "hint"),
    [
        (b"", "an empty file", "again"),
        (b"hello, I am no network", "text that begins 'hello, I am no network'", None),
        ("grün\n".encode() * 2000, "text that begins", None),
        (b'{"epoch": 3}', "JSON that begins", None),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page", "download"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX model", "centerface.onnx"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a git-lfs pointer", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(50), "a compressed file", "unpack"),
        (b"a.pth" + bytes(252) + b"ustar\x00", "a tar archive", "unpack"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "64 bytes of an unknown format, beginning ff d8 ff e0", None),
        (b"\x0a\x05hello", "unknown format", None),
        (b"\n\n\n\n\n\n\n\n", "text", None),
    ],
)
def test_other_files(content, got, hint, put):
    error = refusal(put(content, "model.pth"))
    assert got in error.facts["got"]
    assert (hint or "") in (error.hint or "")


def test_no_file_at_all(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.pth").facts["got"]
    folder = tmp_path / "run"
    folder.mkdir()
    assert refusal(folder).hint is None
    (folder / "model_best.pth").touch()
    assert "model_best.pth" in refusal(folder).hint
    os.mkfifo(tmp_path / "pipe.pth")
    assert "no ordinary file" in refusal(tmp_path / "pipe.pth").facts["got"]
    if os.geteuid():
        secret = tmp_path / "secret.pth"
        secret.touch(mode=0)
        assert "denied" in refusal(secret).facts["got"]


def test_mindspore_files_that_lie(put, value, wire_field):
    whole = value("network.w", "Float32", [2, 3], W.numpy().tobytes())
    for content, text in (
        (value("w", "Float32", [2, 3], bytes(20)), "'w' at byte 22 has 20 bytes for Float32 of shape [2, 3]"),
        (value("w", "Float32", [2, -3], bytes(24)), "of shape [2, -3]"),
        (value("w", "Float32", [1] * 100, bytes(4)), "has more than 64 dimensions"),
        (value("w", "Float32", [1] * 100, bytes(4), packed=True), "has more than 64 dimensions"),
        (value("w", "Qint4x2", [2], bytes(1)), "is of type 'Qint4x2'"),
        (value("w", "Float32", [4], bytes(8)) + value("w", "Float32", [5], bytes(8)), "the parts of 'w' disagree"),
        (whole + b"\x0a\xff\xff\xff\xff\x0f", f"4294967295 bytes are announced at byte {len(whole)} and 0 are left"),
        (whole + b"\x0a" + b"\xff" * 11, f"the number at byte {len(whole) + 1} does not end"),
        (whole + b"\x0b", f"no field can begin with 11 at byte {len(whole)}"),
        (whole + wire_field(1, 3), f"a number where bytes belong at byte {len(whole)}"),
        (whole + wire_field(1, wire_field(1, b"\xff\xfe")), "a name that is no text"),
        (whole + wire_field(1, wire_field(1, b"x" * 5000)), "a name of 5000 bytes"),
        (whole + wire_field(1, wire_field(1, b"x")), "lacks its tag or its type"),
        (whole + wire_field(1, wire_field(1, b"map") + wire_field(3, b"")), "'map' at byte"),
    ):
        assert text in refusal(put(content, "net.ckpt")).facts["got"]
    strings = value("words", "str", [0], b"a\0\0\0")
    assert "a file without tensors" in str(refusal(put(strings, "net.ckpt")))


def test_safetensors_that_lie(save):
    file = save("safetensors", {"w": W})
    whole = file.read_bytes()
    for old, new in ((b"[2,3]", b"[9,9]"), (b'"F32"', b'"XYZ"'), (b"[0,24]", b"[0,99]")):
        assert old in whole
        file.write_bytes(whole.replace(old, new))
        refusal(file)
    file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert "a file without tensors" in str(refusal(file))


def test_half_a_checkpoint_of_torch(save):
    """A download that stopped keeps the beginning; one that was resumed wrongly keeps the end."""
    whole = save("torch", {"w": torch.ones(4000)})
    content = whole.read_bytes()
    whole.write_bytes(content[len(content) // 2 :])
    refusal(whole)
    whole.write_bytes(content[: len(content) // 2])
    assert "cut short or damaged" in refusal(whole).message


def test_the_forged_arrays_are_pickles():
    """A forged array with nothing wrong in it is one that numpy itself reads."""
    assert np.array_equal(pickle.loads(pickle.dumps(array((2,), "f4", W.numpy().tobytes()[4:12]))), [1, 2])
