"""Stand-ins for the few classes, besides tensors, that honest checkpoints hold.

A pickle names classes and functions to be called. Each name in a table below leads to a class of this file, which
checks sizes and keeps data, whatever the file asks of it; no name leads to the thing named. Errors are ValueErrors.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

# kind and item size of numbers, as numpy spells them
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_ORDERS = {"<": "<", ">": ">", "|": "=", "=": "="}


class _Sealed(type):
    """A pickle may set attributes on whatever it names; on these classes it may not."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise ValueError(f"an attempt to change {cls.__name__}.{name}")


class Opaque(metaclass=_Sealed):
    """Something of no use here: it takes any arguments and any state, and forgets them."""

    def __new__(cls, *_: Any, **__: Any) -> Opaque:
        """Return an empty object."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


class Dictionary(metaclass=_Sealed):
    """A kind of dictionary, read as an ordered one."""

    def __new__(cls, *args: Any) -> Any:
        """Return the dictionary; a default factory is left out."""
        return OrderedDict(args[0]) if args and isinstance(args[0], dict) else OrderedDict()


class Encode(metaclass=_Sealed):
    """`_codecs.encode`, which is how protocol 2 writes bytes."""

    def __new__(cls, text: Any, encoding: Any = "latin1") -> Any:
        """Return the bytes."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError(f"bytes written as {encoding!r}")
        return text.encode("latin1")


class NoBytes(metaclass=_Sealed):
    """`bytes()`, which is how protocol 2 writes none."""

    def __new__(cls) -> Any:
        """Return no bytes."""
        return b""


class Dtype(metaclass=_Sealed):
    """`numpy.dtype` of plain numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _NUMBERS:
            raise ValueError(f"an array of type {code!r}, which holds more than numbers")
        self.code, self.order = str(code), "="

    def __setstate__(self, state: Any) -> None:
        # numpy/_core/src/multiarray/descriptor.c: version, byte order, sub-array, names, fields, ...
        if not isinstance(state, tuple) or len(state) < 5 or any(state[2:5]) or state[1] not in _ORDERS:
            raise ValueError("an array of a type that is not plain numbers")
        self.order = state[1]


class Array(metaclass=_Sealed):
    """`numpy.ndarray`; `values` holds the numbers once the state has come."""

    values: NDArray[Any] | None = None

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        # numpy/_core/src/multiarray/methods.c: version (absent in old files), shape, type, Fortran order, content
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without its state")
        shape, dtype, fortran, content = state[-4:]
        self.values = _numbers(content, dtype, shape, "F" if fortran else "C")


class Reconstruct(metaclass=_Sealed):
    """`numpy.core.multiarray._reconstruct`: an array that is filled later."""

    def __new__(cls, kind: Any, *_: Any) -> Any:
        """Return the empty array."""
        if not (isinstance(kind, type) and issubclass(kind, Array)):
            raise ValueError("an array of no known class")
        return kind()


class FromBuffer(metaclass=_Sealed):
    """`numpy.core.numeric._frombuffer`: an array in protocol 5."""

    def __new__(cls, content: Any, dtype: Any, shape: Any, order: Any) -> Any:
        """Return the array."""
        return Array(_numbers(content, dtype, shape, "F" if order == "F" else "C"))


class Scalar(metaclass=_Sealed):
    """`numpy.core.multiarray.scalar`: one number."""

    def __new__(cls, dtype: Any, content: Any) -> Any:
        """Return the number as Python has it."""
        return _numbers(content, dtype, (), "C").item()


def _numbers(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return an array of its own memory in the machine's byte order."""
    if isinstance(content, str):  # Python 2 wrote its bytes as a string
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
        raise ValueError("an array whose content is no plain bytes")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    plain = np.dtype(_ORDERS[dtype.order] + dtype.code)
    if math.prod(shape) * plain.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and type {dtype.code} in {len(content)} bytes")
    return np.ndarray(shape, plain, content, order=order).astype(plain.newbyteorder("="))


NUMPY: dict[str, type] = {
    "numpy.ndarray": Array,
    "numpy.dtype": Dtype,
    "_codecs.encode": Encode,
    "builtins.bytes": NoBytes,
    "__builtin__.bytes": NoBytes,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", Reconstruct),
            ("multiarray.scalar", Scalar),
            ("numeric._frombuffer", FromBuffer),
        )
    },
}
"""What numpy arrays and numbers are pickled with, before and since numpy 2."""

EXTRAS: dict[str, type] = {
    # mmengine's message_hub: histories of losses and their summaries
    "mmengine.logging.history_buffer.HistoryBuffer": Opaque,
    "builtins.getattr": Opaque,
    # configurations kept as objects
    "mmengine.config.config.ConfigDict": Dictionary,
    "mmcv.utils.config.ConfigDict": Dictionary,
    "addict.addict.Dict": Dictionary,
    "argparse.Namespace": Opaque,
    "pathlib.PosixPath": Opaque,
    "pathlib.WindowsPath": Opaque,
    "datetime.datetime": Opaque,
    # dictionaries with a default, and the classes that make it
    "collections.defaultdict": Dictionary,
    **{f"builtins.{name}": Opaque for name in ("int", "float", "str", "bool", "list", "tuple", "dict", "slice")},
}
"""What else detectors' checkpoints hold beside their tensors."""
