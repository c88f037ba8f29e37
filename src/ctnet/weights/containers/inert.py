"""Substitutes for the few classes and functions, besides tensors', that ordinary checkpoints name.

Each builder checks sizes and keeps data, whatever the file asks of it. Errors are ValueErrors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctnet.limits import TENSOR_DIMS
from ctnet.weights.containers.pickle_machine import Builder, Inert, Name, Opaque

Spend = Callable[[int], None]

# kind and item size of numbers, as numpy spells them
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_ORDERS = {"<": "<", ">": ">", "|": "=", "=": "="}
_PAIR_BYTES = 8  # what a pickle needs at least for an entry of a dictionary written as a list


class Dtype(Inert):
    """`numpy.dtype` of plain numbers."""

    def __init__(self, code: Any) -> None:
        if code not in _NUMBERS:
            raise ValueError(f"an array of type {str(code)[:80]!r}, which holds more than numbers")
        self.code, self.order = str(code), "="

    def set_state(self, spend: Spend, state: Any) -> None:
        """Take the byte order."""
        # numpy/_core/src/multiarray/descriptor.c: version, byte order, sub-array, names, fields, ...
        if not isinstance(state, tuple) or len(state) < 5 or any(state[2:5]) or state[1] not in _ORDERS:
            raise ValueError("an array of a type that is not plain numbers")
        self.order = state[1]


class Array(Inert):
    """`numpy.ndarray`; `values` holds the numbers once the state has come."""

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values

    def set_state(self, spend: Spend, state: Any) -> None:
        """Take shape and numbers."""
        # numpy/_core/src/multiarray/methods.c: version (absent in old files), shape, type, Fortran order, content
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without its state")
        shape, dtype, fortran, content = state[-4:]
        self.values = _numbers(spend, content, dtype, shape, "F" if fortran else "C")


def require_sizes(shape: Any) -> tuple[int, ...]:
    """Return the shape when it can be one of an array. Raises ValueError."""
    if not isinstance(shape, tuple) or any(type(size) is not int or not 0 <= size < 1 << 63 for size in shape):
        raise ValueError(f"an array of shape {str(shape)[:80]}")
    TENSOR_DIMS.check(len(shape))
    return shape


def _dictionary(spend: Spend, content: Any = None, *_: Any) -> dict[Any, Any]:
    """Return a kind of dictionary as a plain one; a default factory is left out."""
    if isinstance(content, dict):
        return content
    if isinstance(content, list):  # of pairs, as Python 2 wrote it
        spend(_PAIR_BYTES * len(content))
        return {key: value for key, value in content if isinstance(key, str)}
    return {}


def _encode(spend: Spend, text: Any, encoding: Any = "latin1") -> bytes:
    """Return what `_codecs.encode` makes, which is how protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes written as {str(encoding)[:80]!r}")
    spend(len(text))
    return text.encode("latin1")


def _reconstruct(spend: Spend, kind: Any, *_: Any) -> Array:
    if kind != Name("numpy.ndarray"):
        raise ValueError("an array of no known class")
    return Array()


def _from_buffer(spend: Spend, content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    values = _numbers(spend, content, dtype, shape, "F" if order == "F" else "C")
    return Array(values if axes is None else values.transpose(axes))


def _scalar(spend: Spend, dtype: Any, content: Any) -> Any:
    return _numbers(spend, content, dtype, (), "C").item()


def _numbers(spend: Spend, content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return an array of its own memory in the machine's byte order."""
    if not isinstance(content, (bytes, bytearray, str)) or not isinstance(dtype, Dtype):
        raise ValueError("an array whose content is no plain bytes")
    spend(len(content))
    if isinstance(content, str):  # Python 2 wrote its bytes as a string
        content = content.encode("latin1")
    shape = require_sizes(shape)
    plain = np.dtype(_ORDERS[dtype.order] + dtype.code)
    if math.prod(shape) * plain.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and type {dtype.code} in {len(content)} bytes")
    return np.ndarray(shape, plain, content, order=order).astype(plain.newbyteorder("="))


NUMPY: dict[str, Builder] = {
    "numpy.ndarray": lambda spend, *_: Array(),
    "numpy.dtype": lambda spend, code, *_: Dtype(code),
    "_codecs.encode": _encode,
    "builtins.bytes": lambda spend: b"",  # how protocol 2 writes none
    **{
        f"numpy.{core}.{name}": builder
        for core in ("core", "_core")
        for name, builder in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}
"""Names in pickles of numpy arrays and scalars, before and since numpy 2."""

_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"  # of losses, and how they are summed up
_DICTIONARIES = (
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "addict.addict.Dict",
)
_PLAIN = "int long float str unicode bool list tuple dict slice set frozenset complex bytearray getattr"
_UNUSED = (
    _HISTORY,
    *(f"{_HISTORY}.{method}" for method in ("mean", "max", "min", "current")),
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "datetime.datetime",
    # the classes that a default factory makes, and plain values of no use; long and unicode are Python 2's
    *(f"builtins.{name}" for name in _PLAIN.split()),
)

EXTRAS: dict[str, Builder] = {**dict.fromkeys(_DICTIONARIES, _dictionary), **dict.fromkeys(_UNUSED, Opaque)}
"""Further names in detectors' checkpoints."""
