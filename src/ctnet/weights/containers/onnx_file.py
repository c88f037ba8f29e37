"""ONNX files, read here without their library: the numbers of a graph and what its nodes do.

Format: onnx/onnx.proto. `ModelProto {GraphProto graph = 7}`, `GraphProto {NodeProto node = 1; TensorProto initializer
= 5; ValueInfoProto output = 12}`, `NodeProto {string input = 1, output = 2, op_type = 4; AttributeProto attribute =
5}`, `AttributeProto {string name = 1; float f = 2; int64 i = 3, ints = 8}`, `TensorProto {int64 dims = 1; int32
data_type = 2; float float_data = 4; string name = 8; bytes raw_data = 9}`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.limits import TENSOR_DIMS, TENSORS
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.protobuf import Span, as_span, fields, signed, text
from ctnet.weights.containers.refusals import damaged

_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 10: torch.float16, 11: torch.float64}


def begins_like_onnx(head: bytes) -> bool:
    """Return whether a version of the format, and one of the next fields, begin here."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 0x20 and head[2] in b"\x12\x1a\x22\x2a\x32\x3a\x42"


def read_onnx(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the numbers by name, and beside them `nodes` and `outputs` of the graph.

    A node is (operator, names of inputs, names of outputs, attributes that are numbers). Raises WeightsError that names
    the byte where the file stops making sense.
    """
    with mapped(path) as data, memoryview(data) as view:
        try:
            return _decode(view)
        except (ValueError, RuntimeError, MemoryError, struct.error) as error:
            raise damaged(path, error) from None


def _decode(data: memoryview) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
    outputs: list[str] = []
    for number, value, at in fields(data, Span(0, len(data))):
        if number != 7:
            continue
        for inner, part, place in fields(data, as_span(value, at)):
            if inner == 1:
                nodes.append(_node(data, as_span(part, place)))
            elif inner == 5:
                name, tensor = _tensor(data, as_span(part, place))
                tensors[name] = tensor
            elif inner == 12:
                outputs.append(_first_text(data, as_span(part, place)))
            TENSORS.check(max(len(tensors), len(nodes), len(outputs)))
    return tensors, {"nodes": nodes, "outputs": outputs}


def _first_text(data: memoryview, span: Span) -> str:
    return next((text(data, as_span(value, at)) for number, value, at in fields(data, span) if number == 1), "")


def _node(data: memoryview, span: Span) -> tuple[str, list[str], list[str], dict[str, Any]]:
    operator, inputs, outputs, attributes = "", list[str](), list[str](), dict[str, Any]()
    for number, value, at in fields(data, span):
        if number in (1, 2):
            (inputs if number == 1 else outputs).append(text(data, as_span(value, at)))
        elif number == 4:
            operator = text(data, as_span(value, at))
        elif number == 5:
            name, content = _attribute(data, as_span(value, at))
            attributes[name] = content
        TENSORS.check(max(len(inputs), len(outputs), len(attributes)))
    return operator, inputs, outputs, attributes


def _attribute(data: memoryview, span: Span) -> tuple[str, Any]:
    name, ints, content = "", [], None
    for number, value, at in fields(data, span):
        if number == 1:
            name = text(data, as_span(value, at))
        elif number == 2:
            (content,) = struct.unpack("<f", data[slice(*as_span(value, at))])
        elif number == 3:
            content = value
        elif number == 8:
            ints += signed(data, value)
            TENSORS.check(len(ints))
    return name, ints or content


def _tensor(data: memoryview, span: Span) -> tuple[str, Tensor]:
    name, kind, shape, content = "", 0, list[int](), bytearray()
    for number, value, at in fields(data, span):
        if number == 1:
            shape += signed(data, value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (4, 9):
            content += data[slice(*as_span(value, at))]
        elif number == 8:
            name = text(data, as_span(value, at))
    dtype = _DTYPES.get(kind)
    if dtype is None or len(shape) > TENSOR_DIMS.most or any(size < 0 for size in shape):
        raise ValueError(f"{name!r} at byte {span.start} is of type {kind} and shape {shape[:9]}, not known here")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name!r} at byte {span.start} has {len(content)} bytes for {dtype} of shape {shape}")
    return name, torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)
