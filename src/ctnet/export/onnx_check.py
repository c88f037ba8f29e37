"""Checks of an ONNX file before a runtime loads it: standard operators only, and all tensors inside the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctnet.errors import WeightsError

_STANDARD = {"", "ai.onnx"}


def checked_onnx(path: Path) -> bytes:
    """Return the file's content. Raises WeightsError for custom operators, and for numbers in other files.

    A runtime that is given bytes has no folder either, from which it could read what is named in them.
    """
    import onnx

    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has classes of its own
        raise WeightsError("onnxruntime cannot load the file", file=path, got=str(error)[:300]) from None
    functions = {(function.domain, function.name) for function in model.functions}
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.data_location == onnx.TensorProto.EXTERNAL or message.external_data):
            raise _refused(path, f"the numbers of {message.name[:80]!r} in another file")
        known = kind != "NodeProto" or message.domain in _STANDARD or (message.domain, message.op_type) in functions
        if not known:
            raise _refused(path, f"the operator {message.op_type[:80]!r} of {message.domain[:80]!r}")
    return content


def _messages(message: Any) -> Iterator[Any]:
    """Yield the message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "__len__") else (value,):
                yield from _messages(inner)


def _refused(path: Path, got: str) -> WeightsError:
    return WeightsError(
        "the ONNX file is not one that ctnet writes", file=path, got=got,
        expected="standard operators, and all numbers within the file",
        hint="export the weights again: ctnet export onnx",
    )  # fmt: skip
