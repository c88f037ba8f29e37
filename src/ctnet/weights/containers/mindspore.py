"""MindSpore's `.ckpt`: a protocol buffer, read field by field with every length checked.

The message is `Checkpoint` of MindSpore's `checkpoint.proto`: values (1), each with a tag (1) and a tensor (2) of
dims (1), tensor_type (2) and tensor_content (3). A large tensor is cut into several values with one tag.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctnet.errors import WeightsError
from ctnet.weights.containers.container import Container

_TYPES = {
    "Float32": torch.float32,
    "Float16": torch.float16,
    "Float64": torch.float64,
    "BFloat16": torch.bfloat16,
    "Int8": torch.int8,
    "Int16": torch.int16,
    "Int32": torch.int32,
    "Int64": torch.int64,
    "UInt8": torch.uint8,
    "Bool": torch.bool,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Damaged(Exception):
    """What is wrong, and where."""


def looks_like(head: bytes) -> bool:
    """Say whether a file begins with a value that begins with a printable tag."""
    try:
        number, _, start, _ = _header(memoryview(head), 0)
        inner, kind, first, size = _header(memoryview(head), start)
    except _Damaged:
        return False
    tag = head[first : first + min(size, 32)]
    return (
        number == 1 and inner == 1 and kind == _BYTES and len(tag) > 0 and tag.isascii() and tag.decode().isprintable()
    )


def read(path: Path) -> Container:
    """Return all tensors of the file. Raises WeightsError with the offset at which it is damaged."""
    parts: dict[str, tuple[list[int], str, list[memoryview]]] = {}
    whole = memoryview(path.read_bytes())
    try:
        for number, value in _fields(whole, 0, len(whole)):
            if number == 1:
                tag, dims, type_name, content = _value(whole, value)
                parts.setdefault(tag, (dims, type_name, []))[2].append(content)
        tensors = {tag: _tensor(tag, *part) for tag, part in parts.items()}
    except _Damaged as error:
        raise WeightsError("the file is cut short or damaged", file=path, got=error) from None
    if not tensors:
        raise WeightsError("the file holds no tensors", file=path)
    return Container("mindspore", tensors, "", {})


def _value(whole: memoryview, place: slice) -> tuple[str, list[int], str, memoryview]:
    tag, tensor = None, None
    for number, inner in _fields(whole, place.start, place.stop):
        if number == 1:
            tag = _text(whole, inner)
        elif number == 2:
            tensor = inner
        elif number == 3:
            raise _Damaged(f"{tag or 'a value'} is a hash table, which no network here has")
    if tag is None or tensor is None:
        raise _Damaged(f"a value without {'name' if tag is None else 'tensor'} at byte {place.start}")
    dims: list[int] = []
    type_name, content = "", whole[0:0]
    for number, inner in _fields(whole, tensor.start, tensor.stop):
        if number == 1:
            dims += [inner] if isinstance(inner, int) else _packed(whole, inner)
        elif number == 2:
            type_name = _text(whole, inner)
        elif number == 3 and isinstance(inner, slice):
            content = whole[inner]
    return tag, dims, type_name, content


def _tensor(tag: str, dims: list[int], type_name: str, contents: list[memoryview]) -> Tensor:
    dtype = _TYPES.get(type_name)
    if dtype is None:
        raise _Damaged(f"{tag} has type {type_name!r}; known are {', '.join(_TYPES)}")
    raw = np.concatenate([np.frombuffer(content, np.uint8) for content in contents])
    shape = [] if dims == [0] and raw.size == dtype.itemsize else dims  # how a lone number is written
    if math.prod(shape) * dtype.itemsize != raw.size:
        raise _Damaged(f"{tag} has shape {shape} of {type_name} in {raw.size} bytes")
    if raw.size == 0:
        return torch.zeros(shape, dtype=dtype)
    return torch.from_numpy(raw).view(dtype).reshape(shape)


def _fields(whole: memoryview, start: int, stop: int) -> Iterator[tuple[int, slice]]:
    """Yield (number, place) of every field between two offsets; numbers come as ints."""
    at = start
    while at < stop:
        number, kind, first, size = _header(whole[:stop], at)
        if kind == _VARINT:
            yield number, size  # type: ignore[misc]
            at = first
        else:
            at = first + size
            if at > stop:
                raise _Damaged(f"a length at byte {first} leads {at - stop} bytes beyond the end")
            yield number, slice(first, at)


def _header(whole: memoryview, at: int) -> tuple[int, int, int, int]:
    """Return (field number, wire type, where the content starts, its size; for a number the number itself)."""
    key, at = _varint(whole, at)
    kind = key & 7
    if kind in (_VARINT, _BYTES):
        size, at = _varint(whole, at)
    elif kind in (_FIXED64, _FIXED32):
        size = 8 if kind == _FIXED64 else 4
    else:
        raise _Damaged(f"no protocol buffer at byte {at}")
    return key >> 3, kind, at, size


def _varint(whole: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(whole):
            raise _Damaged(f"the file ends at byte {len(whole)} in the middle of a number")
        byte = whole[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise _Damaged(f"an endless number at byte {at}")


def _packed(whole: memoryview, place: slice) -> list[int]:
    values, at = [], place.start
    while at < place.stop:
        value, at = _varint(whole[: place.stop], at)
        values.append(value)
    return values


def _text(whole: memoryview, place: object) -> str:
    if not isinstance(place, slice):
        raise _Damaged("a number where a name is expected")
    try:
        return bytes(whole[place]).decode()
    except UnicodeDecodeError:
        raise _Damaged(f"a name at byte {place.start} is no text") from None
