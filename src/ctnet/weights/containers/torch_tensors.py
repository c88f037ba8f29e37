"""What stands for the functions of torch that a pickle of tensors names (torch/_utils.py, torch/_tensor.py)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage

from ctnet.weights.containers.inert import EXTRAS, NUMPY, Array, Spend, require_sizes
from ctnet.weights.containers.pickle_machine import Builder, Inert, Name, Opaque

_DTYPES = {f"torch.{name}": kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
_STORAGES = {
    f"torch.{name}Storage": kind
    for name, kind in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
        "QUInt8": torch.quint8, "QInt8": torch.qint8, "QInt32": torch.qint32, "QUInt4x2": torch.quint4x2,
        "QUInt2x4": torch.quint2x4,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}  # fmt: skip


class Stored(NamedTuple):
    """The content of tensors: bytes, and the type of the numbers in them."""

    storage: UntypedStorage
    dtype: torch.dtype


class Unusual(Inert):
    """A tensor that is sparse, quantised, nested, without content, or of a class of its own."""

    def __init__(self, *_: Any) -> None: ...


def storage_of(persistent_id: Any) -> tuple[torch.dtype, str, int, Any]:
    """Return type, key, number of bytes and rest of what torch writes for a storage. Raises ValueError."""
    if not isinstance(persistent_id, tuple) or len(persistent_id) < 5 or persistent_id[0] != "storage":
        raise ValueError("a content that is no storage of torch")
    _, kind, key, _, count, *rest = persistent_id
    dtype = _STORAGES.get(kind.full) if isinstance(kind, Name) else None
    if dtype is None or type(count) is not int or not 0 <= count < 1 << 60 or not isinstance(key, str):
        raise ValueError(f"a storage of {str(count)[:40]} numbers of no known type")
    return dtype, key, count * dtype.itemsize, rest


def _tensor(spend: Spend, stored: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return the part of a storage as a tensor. Raises ValueError when it reaches beyond."""
    if not isinstance(stored, Stored):
        raise ValueError("a tensor without its storage")
    return _view(stored.storage, stored.dtype, offset, require_sizes(size), require_sizes(stride))


def _typed_tensor(
    spend: Spend, stored: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """Return a tensor of a type that no class of storages has: it lies in plain bytes."""
    if not isinstance(dtype, Name) or dtype.full not in _DTYPES or not isinstance(stored, Stored):
        raise ValueError("a tensor of no known type")
    return _view(stored.storage, _DTYPES[dtype.full], offset, require_sizes(size), require_sizes(stride))


def _view(
    storage: UntypedStorage, dtype: torch.dtype, offset: Any, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    if type(offset) is not int or not 0 <= offset < 1 << 60 or len(size) != len(stride):
        raise ValueError(f"a tensor of shape {size} with strides {stride}")
    if math.prod(size) >= 1 << 63:
        raise ValueError(f"a tensor of shape {size}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else -1
    if (last + 1) * dtype.itemsize > storage.nbytes():
        raise ValueError(
            f"a tensor of shape {size} that needs {last + 1} numbers of {dtype} in {storage.nbytes()} bytes"
        )
    return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)


def _first(spend: Spend, data: Any, *_: Any) -> Any:
    """Return what a parameter, or a tensor that some device kept, was made of."""
    if not isinstance(data, Tensor | Array | Unusual):
        raise ValueError("a parameter without its tensor")
    return data


def _of_class(spend: Spend, function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Return the tensor below one that has attributes or a class of its own."""
    builder = _TENSORS.get(function.full) if isinstance(function, Name) else None
    if builder in (None, _of_class) or not isinstance(arguments, tuple):
        raise ValueError("a tensor that no function of torch makes")
    return builder(spend, *arguments)


_UTILS: dict[str, Builder] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _typed_tensor,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_device_tensor_from_numpy": _first,
    "_rebuild_device_tensor_from_cpu_tensor": _first,
    "_rebuild_qtensor": Unusual,
    "_rebuild_sparse_tensor": Unusual,
    "_rebuild_sparse_csr_tensor": Unusual,
    "_rebuild_nested_tensor": Unusual,
    "_rebuild_wrapper_subclass": Unusual,
    "_rebuild_meta_tensor_no_storage": Unusual,
}
_TENSORS = {f"torch._utils.{name}": builder for name, builder in _UTILS.items()}
_WORDS = (
    "torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
    "torch.serialization._get_layout", *(f"torch.{name}" for name in (
        "per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric",
        "per_channel_affine_float_qparams")),
)  # fmt: skip

TORCH: dict[str, Builder] = {
    **NUMPY,
    **EXTRAS,
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    **dict.fromkeys((*_DTYPES, *_STORAGES, *_WORDS), Opaque),
}
"""All that a file of torch may name."""
