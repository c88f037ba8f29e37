"""Files of `torch.save`, read by torch's own restricted unpickler."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.errors import WeightsError
from ctnet.files import replacing
from ctnet.weights.containers.container import Container, network_part

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number that torch wrote before it wrote zips

# What training programs put beside the weights: logs and settings. Each becomes an object that does nothing.
_BESIDE = re.compile(
    r"(mmengine|mmcv|mmdet|addict|yacs|omegaconf|argparse|pathlib|datetime|collections|numpy)\.[\w.]+"
    r"|builtins\.getattr|__builtin__\.getattr|_codecs\.encode"
)


class _Nothing:
    """Stands for an object that is not wanted: it can be made and given a state, and neither has an effect."""

    def __new__(cls, *_args: object, **_more: object) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_more: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass


def read_zip(path: Path) -> Container:
    """Return the network in a zip of `torch.save`; its tensors stay on the disk until used. Raises WeightsError."""
    _require_torch_zip(path)
    return network_part(_load(path, mmap=True), "torch", path)


def read_legacy(path: Path) -> Container:
    """Return the network in a file of torch before 1.6. Raises WeightsError."""
    return network_part(_load(path, mmap=False), "torch-legacy", path)


def load_plain(path: Path) -> object:
    """Return all that a zip of `torch.save` holds, in memory: tensors and plain values. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError("there is no such file", file=path)
    _require_torch_zip(path)
    return _load(path, mmap=False)


def _require_torch_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WeightsError("the file is cut short or damaged", file=path, got=error) from None
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size:  # torch stores without compressing
        raise WeightsError(
            "the archive would unpack to more than it is", file=path, expected=f"at most {size} bytes", got=unpacked
        )
    names = [entry.filename.rpartition("/")[2] for entry in entries]
    if "data.pkl" not in names:
        raise WeightsError("a zip archive, but not one of torch", file=path)
    if "constants.pkl" in names:
        raise WeightsError(
            "a TorchScript program, not a checkpoint", file=path, hint="save the state dict of the network instead"
        )


def _load(path: Path, *, mmap: bool) -> object:
    """Return what the file holds; objects that have no business in it are refused, those beside it left empty."""
    nothing: dict[str, type] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in nothing.items()]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:  # on damaged files torch raises whatever the damage leads to
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            if named and named[1] not in nothing and _BESIDE.fullmatch(named[1]):
                nothing[named[1]] = type("_Nothing", (_Nothing,), {})
                continue
            if named:
                raise WeightsError(
                    "the file wants to run code; nothing was run",
                    file=path,
                    got=named[1],
                    hint="save the state dict of the network: tensors and nothing else",
                ) from None
            raise WeightsError(
                "the file is cut short or damaged", file=path, got=str(error).partition("\n")[0][:200]
            ) from None


def write_torch(path: Path, state_dict: dict[str, Tensor], **rest: Any) -> None:
    """Write `{"state_dict": ..., **rest}` as torch does, whole or not at all. Raises StorageError."""
    tensors = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    with replacing(path) as temporary:
        try:
            torch.save({**rest, "state_dict": tensors}, temporary)
        except RuntimeError as error:  # torch's way to say that the disk is full
            raise OSError(None, str(error).partition("\n")[0]) from error
