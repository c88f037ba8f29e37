"""torch's own files: the zip of `torch.save`, and the bare pickles it wrote before version 1.6."""

from __future__ import annotations

import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.errors import WeightsError
from ctnet.files import replacing
from ctnet.weights.containers.inert import EXTRAS, NUMPY
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.pickle_scan import scan
from ctnet.weights.containers.refusals import damaged, foreign_code, no_weights

LEGACY_PICKLES = 5  # torch/serialization.py: magic number, protocol, system, the object, the names of its storages
_ALONE = threading.Lock()  # torch keeps the names it may read, as Python its warnings, once for all threads


def load_torch_zip(path: Path, *, in_file: bool = True) -> Any:
    """Return the object in a zip of `torch.save`; nothing is executed.

    With `in_file` the tensors lie in the file, unread until they are used, and a write to one stays in memory.
    numpy arrays come as `inert.Array`. Raises WeightsError.
    """
    try:
        _check_zip(path)
        return _load(path, mmap=in_file)
    except WeightsError:
        raise
    except Exception as error:  # torch and zipfile raise almost anything for a broken file
        raise damaged(path, error) from None


def load_torch_legacy(path: Path) -> Any:
    """Return the object in a file of torch before 1.6, as `load_torch_zip` does."""
    try:
        with mapped(path) as data:
            for _ in range(LEGACY_PICKLES):
                scan(data)
        return _load(path)
    except WeightsError:
        raise
    except Exception as error:
        raise damaged(path, error) from None


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
        said = re.sub(r"^\[enforce fail[^]]*\][ .]*", "", str(error).partition("\n")[0])
        full = "" if "open file failed" in said else ": is the disk full?"
        raise OSError(None, f"torch could not write all of it ({said}){full}") from error


def _alone(tensor: Tensor) -> Tensor:
    """Return the tensor in a storage of its own: torch writes whole storages, shared ones once."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _check_zip(path: Path) -> None:
    """Raise WeightsError unless the zip is laid out as torch lays it out, nothing in it growing when unpacked."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch takes names as equal whatever their case
        names = {entry.filename.partition("/")[2].lower(): entry for entry in entries}
        size, content = path.stat().st_size, sum(entry.file_size for entry in entries)
        if content > size:
            raise WeightsError(
                "the zip would unpack to more than itself; torch compresses nothing",
                file=path,
                expected=f"at most {size} bytes",
                got=f"{content} bytes",
            )
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            hint = "save the state_dict() of the model where it was made"
            raise no_weights(path, "a TorchScript program", hint)
        if "data.pkl" not in names:
            raise no_weights(path, "a zip, but no torch file", "unpack it if weights are inside")
        if len(names) < len(entries):
            raise damaged(path, "two entries of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise damaged(path, "compressed entries, which torch does not write")
        scan(BytesIO(archive.read(names["data.pkl"])))


def _load(path: Path, **options: Any) -> Any:
    """Read with torch's restricted unpickler and our stand-ins; a name it refuses becomes a WeightsError."""
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in {**NUMPY, **EXTRAS}.items()]
    with _ALONE, warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read raises
        try:
            return torch.load(path, map_location="cpu", weights_only=True, **options)
        except Exception as error:
            refused = re.search(r"GLOBAL (\S+)", str(error))
            if refused:
                name = refused[1] if "." in refused[1] else f"builtins.{refused[1]}"
                raise foreign_code(path, name) from None
            told = re.search(r"WeightsUnpickler error: (.+)", str(error))
            raise ValueError(told[1] if told else error) from None
