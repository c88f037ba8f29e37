"""torch's own files: the zip of `torch.save`, and the bare pickles it wrote before version 1.6."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, UntypedStorage

from ctnet.errors import WeightsError
from ctnet.files import replacing
from ctnet.limits import TENSORS
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.pickle_machine import Machine
from ctnet.weights.containers.refusals import damaged, explaining, no_weights
from ctnet.weights.containers.torch_tensors import TORCH, Stored, storage_of
from ctnet.weights.containers.zip_file import content_start, open_zip

LEGACY_HEAD = 3  # torch/serialization.py: magic number, protocol, system; then the object, and its storages' names
_ALIGNED = 16  # bytes; kernels may load whole vectors


def load_torch_zip(path: Path, *, in_file: bool = True) -> Any:
    """Return the object in a zip of `torch.save`, of any pickle protocol; nothing is executed.

    With `in_file` the tensors are memory-mapped, copy on write.
    numpy arrays come as `inert.Array`, tensors of unusual kinds as `torch_tensors.Unusual`. Raises WeightsError.
    """
    with explaining(path), open_zip(path) as archive, mapped(path) as data, path.open("rb") as file:
        entries = _entries(archive, path, len(data))
        pickled = archive.read(entries["data.pkl"])
        swapped = "byteorder" in entries and archive.read(entries["byteorder"]).decode() != sys.byteorder
        whole = UntypedStorage.from_file(str(path), shared=False, nbytes=len(data))
        read: dict[str, UntypedStorage] = {}

        def stored(persistent_id: Any) -> Stored:
            dtype, key, size, _ = storage_of(persistent_id)
            if key not in read:
                TENSORS.check(len(read))
                start, length = content_start(data, entries[f"data/{key}"]), entries[f"data/{key}"].file_size
                if in_file and not swapped and start % _ALIGNED == 0:
                    read[key] = whole[start : start + length]
                else:
                    read[key] = UntypedStorage(length)  # type: ignore[no-untyped-call]
                    file.seek(start)
                    _fill(read[key], file)
                if swapped:
                    read[key].byteswap(dtype)  # type: ignore[no-untyped-call]
            if read[key].nbytes() < size:
                raise ValueError(f"a storage of {size} bytes in {read[key].nbytes()}")
            return Stored(read[key], dtype)

        return Machine(io.BytesIO(pickled), len(pickled), TORCH, stored).load()


def load_torch_legacy(path: Path) -> Any:
    """Return the object in a file of torch before 1.6, as `load_torch_zip` does; its tensors lie in memory."""
    with explaining(path), mapped(path) as data, path.open("rb") as file:
        read: dict[str, Stored] = {}
        left = len(data)

        def stored(persistent_id: Any) -> Stored:
            nonlocal left
            dtype, key, size, rest = storage_of(persistent_id)
            if key not in read:
                left -= size
                if left < 0:
                    raise ValueError(f"storages of more than the {len(data)} bytes of the file")
                TENSORS.check(len(read))
                read[key] = Stored(UntypedStorage(size), dtype)  # type: ignore[no-untyped-call]
            storage = read[key].storage
            if rest and rest[0] is not None:  # a part of it: a key, the first number and the number of numbers
                _, first, count = rest[0]
                storage = storage[first * dtype.itemsize : (first + count) * dtype.itemsize]
            return Stored(storage, dtype)

        machine = Machine(data, len(data), TORCH, stored)
        for _ in range(LEGACY_HEAD):
            machine.load()
        content, keys = machine.load(), machine.load()
        file.seek(data.tell())
        _fill_all(read, keys, file)
        return content


def write_torch(path: Path, state_dict: Mapping[str, Tensor], *, part: str = "state_dict", **rest: Any) -> None:
    """Write a zip of `torch.save` whole or not at all: the tensors under the key `part`, `rest` beside them.

    With `part` empty the tensors are the top level. Raises StorageError when the disk refuses.
    """
    tensors = OrderedDict((name, _alone(tensor.detach().cpu())) for name, tensor in state_dict.items())
    content = {**rest, part: tensors} if part else {**tensors, **rest}
    write_zip(path, content)


def write_zip(path: Path, content: Any) -> None:
    """Write what `torch.save` writes of any content, whole or not at all. Raises StorageError when the disk refuses."""
    with replacing(path) as temporary, explaining_full_disks():
        torch.save(content, temporary)


@contextmanager
def explaining_full_disks() -> Iterator[None]:
    """Raise OSError where torch's zip writer, which reports a full disk otherwise, fails in the block."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[enforce fail[^]]*\][ .]*", "", str(error).partition("\n")[0])
        full = "" if "open file failed" in reason else ": is the disk full?"
        raise OSError(None, f"torch could not write all of it ({reason}){full}") from error


def _alone(tensor: Tensor) -> Tensor:
    """Return the tensor in a storage of its own: torch writes whole storages, shared ones once."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _entries(archive: zipfile.ZipFile, path: Path, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return what is in the zip. Raises WeightsError unless torch laid it out, nothing in it growing when unpacked."""
    found = archive.infolist()
    entries = {entry.filename.partition("/")[2]: entry for entry in found}
    content = sum(entry.file_size for entry in found)
    if content > size:
        raise WeightsError(
            "the zip unpacks to more than its size; torch compresses nothing",
            file=path,
            expected=f"at most {size} bytes",
            got=f"{content} bytes",
        )
    if "constants.pkl" in entries or any(name.startswith("code/") for name in entries):
        raise no_weights(path, "a TorchScript program", "save the state_dict() of the model where it was made")
    if "data.pkl" not in entries:
        raise no_weights(path, "a zip, but no torch file", "unpack it if weights are inside")
    if len({name.lower() for name in entries}) < len(found):  # torch takes names as equal whatever their case
        raise damaged(path, "two entries of one name")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in found):
        raise damaged(path, "compressed entries, which torch does not write")
    return entries


def _fill(storage: UntypedStorage, file: BinaryIO) -> None:
    """Read the bytes of a storage."""
    if storage.nbytes() and file.readinto(torch.empty(0, dtype=torch.uint8).set_(storage).numpy()) != storage.nbytes():  # type: ignore[attr-defined]
        raise ValueError("the numbers of a tensor end too early")


def _fill_all(storages: Mapping[str, Stored], keys: Any, file: BinaryIO) -> None:
    """Read what follows the pickles: for each key the number of its numbers, then these."""
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise ValueError("the storages and their names do not agree")
    for key in keys:
        storage, dtype = storages[key]
        count = file.read(8)
        if len(count) < 8 or int.from_bytes(count, "little") * dtype.itemsize != storage.nbytes():
            raise ValueError(f"the storage {key} is not whole")
        _fill(storage, file)
