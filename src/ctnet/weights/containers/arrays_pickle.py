"""Pickles of numpy arrays, as detectron2 and Caffe2 keep their models, read without any of numpy's constructors.

Every global that a pickle of arrays needs leads to a stand-in of ours that keeps data and checks sizes; any other
is refused by name. The format is that of `numpy.ndarray.__reduce__` and `__setstate__`.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctnet.errors import WeightsError
from ctnet.weights.containers.container import Container, network_part


class _Refused(Exception):
    """A global that arrays do not need; its name."""


class _DType:
    """`numpy.dtype(code, ...)` and its state, whose second item is the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def resolve(self) -> np.dtype[Any]:
        """Return the plain number type that is meant."""
        letters = self.code.lstrip("<>=|")
        if letters[:1] not in ("f", "i", "u", "b") or not letters[1:].isdecimal():
            raise ValueError(f"arrays of type {self.code!r}")
        return np.dtype((self.order if self.order in ("<", ">") else "") + letters)


class _Array:
    """`numpy.ndarray` on its way: empty, then given (version, shape, dtype, is_fortran, bytes)."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray[Any, Any] = np.zeros(0, np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: object, dtype: _DType, shape: tuple[int, ...], order: str = "C") -> np.ndarray[Any, Any]:
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)  # type: ignore[call-overload]
    kind = dtype.resolve()
    if any(side < 0 for side in shape) or math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"an array of shape {tuple(shape)} in {len(raw)} bytes")
    array = np.frombuffer(bytearray(raw), kind).reshape(shape, order="F" if order == "F" else "C")
    return np.ascontiguousarray(array, kind.newbyteorder("="))


def _from_buffer(content: object, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.value = _array(content, dtype, shape, order)
    return made


def _scalar(dtype: _DType, content: object) -> object:
    return _array(content, dtype, ()).item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Python 3 writes bytes this way into old protocols."""
    if encoding != "latin1":
        raise ValueError(f"text in {encoding}")
    return text.encode("latin1")


def _numpy(core: str) -> dict[tuple[str, str], Callable[..., object]]:
    return {
        (f"{core}.multiarray", "_reconstruct"): _Array,
        (f"{core}.multiarray", "scalar"): _scalar,
        (f"{core}.numeric", "_frombuffer"): _from_buffer,
    }


_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    **_numpy("numpy.core"),
    **_numpy("numpy._core"),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The one in Python, which allots memory for what is in the file only, not for what the file says will come."""

    def find_class(self, module: str, name: str) -> object:
        """Return the stand-in for a global."""
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def read(path: Path) -> Container:
    """Return the arrays of a pickle as tensors; nothing is executed. Raises WeightsError."""
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return network_part(_arrays(content), "pickle", path)
    except WeightsError:
        raise
    except _Refused as error:
        raise WeightsError(
            "the file wants to run code; nothing was run", file=path, expected="arrays of numbers", got=error
        ) from None
    except Exception as error:  # a damaged pickle can lead to any of them
        raise WeightsError("the file is cut short or damaged", file=path, got=str(error)[:200] or "its end") from None


def _arrays(content: object) -> object:
    """Return nested dicts with the finished arrays in them."""
    if isinstance(content, _Array):
        return content.value
    if isinstance(content, Mapping):
        return {key: _arrays(value) for key, value in content.items()}
    return content
