"""MindSpore's `.ckpt`: a stream of protocol-buffer messages, read here without its library.

Format: mindspore/ccsrc/utils/checkpoint.proto and mindspore/train/serialization.py of MindSpore:
`Checkpoint {repeated Value value = 1}`, `Value {string tag = 1; oneof {TensorProto tensor = 2; MapTensorProto
maptensor = 3}}`, `TensorProto {repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3}`.
A large tensor is cut over several values of one tag, each with the dims of the whole; a scalar has dims [0].
With `crc_check` the file ends with `crc_num` and ten bytes of a big-endian CRC-32.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.limits import NAME_BYTES, TENSOR_DIMS, TENSORS
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.protobuf import Span, as_span, fields, signed, text, varint
from ctnet.weights.containers.refusals import damaged

CRC_MARK, CRC_BYTES = b"crc_num", 10

_DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "bool": torch.bool,
}


@dataclass
class _Entry:
    kind: str
    dims: list[int]
    pieces: list[Span] = field(default_factory=list)


def begins_like_mindspore(head: bytes) -> bool:
    """Return whether a first value with a printable tag and a tensor begins here."""
    try:
        if head[0] != 0x0A:
            return False
        _, start = varint(head, Span(1, len(head)))
        if head[start] != 0x0A:
            return False
        length, start = varint(head, Span(start + 1, len(head)))
        tag = head[start : start + length].decode()
        return 0 < length <= NAME_BYTES.most and tag.isprintable() and head[start + length] in (0x12, 0x1A)
    except (IndexError, ValueError):
        return False


def read_mindspore(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, copied out of the file one by one, and the strings beside them.

    The format has no end mark: a file cut between two values reads as one of fewer tensors.
    Raises WeightsError that names the byte where the file stops making sense.
    """
    with mapped(path) as data, memoryview(data) as view:
        try:
            return _decode(view)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise damaged(path, error) from None


def _decode(data: memoryview) -> tuple[dict[str, Tensor], dict[str, Any]]:
    entries: dict[str, _Entry] = {}
    for number, value, at in fields(data, Span(0, _end_of_values(data))):
        if number == 1:
            _collect(data, as_span(value, at), entries)
            TENSORS.check(len(entries))
    tensors: dict[str, Tensor] = {}
    strings: dict[str, Any] = {}
    for tag, entry in entries.items():
        content = bytearray().join(data[piece.start : piece.stop] for piece in entry.pieces)
        if entry.kind == "str":
            strings[tag] = content.decode("utf-32-le", "replace").rstrip("\0")
        elif entry.kind != "random_op":  # the state of a random generator
            tensors[tag] = _tensor(tag, entry, content)
    return tensors, strings


def _end_of_values(data: memoryview) -> int:
    end = len(data) - CRC_BYTES - len(CRC_MARK)
    if end < 0 or data[end : end + len(CRC_MARK)] != CRC_MARK:
        return len(data)
    if zlib.crc32(data[:end]) != int.from_bytes(data[-CRC_BYTES:], "big"):
        raise ValueError("the checksum at the end does not match the content")
    return end


def _collect(data: memoryview, span: Span, entries: dict[str, _Entry]) -> None:
    """Add one value to the entries."""
    tag, kind, content = "", "", Span(span.start, span.start)
    dims: list[int] = []
    for number, value, at in fields(data, span):
        if number == 1:
            tag = text(data, as_span(value, at))
        elif number == 2:
            for inner, part, place in fields(data, as_span(value, at)):
                if inner == 1:
                    dims += signed(data, part)
                elif inner == 2:
                    kind = text(data, as_span(part, place))
                elif inner == 3:
                    content = as_span(part, place)
        elif number == 3:
            raise ValueError(f"{tag!r} at byte {at} is a MapTensor, which no detector has")
    if not tag or not kind:
        raise ValueError(f"the value at byte {span.start} lacks its tag or its type")
    entry = entries.setdefault(tag, _Entry(kind, dims))
    if (entry.kind, entry.dims) != (kind, dims):
        raise ValueError(f"the parts of {tag!r} disagree at byte {span.start}: {entry.dims} and {dims}")
    entry.pieces.append(content)


def _tensor(tag: str, entry: _Entry, content: bytearray) -> Tensor:
    at = entry.pieces[0].start
    dtype = _DTYPES.get(entry.kind.rpartition(".")[2].rstrip("_").lower())
    if dtype is None:
        raise ValueError(f"{tag!r} at byte {at} is of type {entry.kind!r}, which is not known here")
    shape = [] if entry.dims == [0] and content else entry.dims
    if len(shape) > TENSOR_DIMS.most:
        raise ValueError(f"{tag!r} at byte {at} has more than {TENSOR_DIMS.most} dimensions")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{tag!r} at byte {at} has {len(content)} bytes for {entry.kind} of shape {shape}")
    if not content:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:  # a byte other than 0 and 1 is no bool to torch
        return (torch.frombuffer(content, dtype=torch.uint8) != 0).reshape(shape)
    return torch.frombuffer(content, dtype=dtype).reshape(shape)
