"""Tensors of the emulated device: torch takes them for the card's, their numbers are on the host."""

import json
import os
import weakref
from collections import Counter
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from emulation import waits

aten = torch.ops.aten
CALLS: Counter = Counter()
"""what ran on the device, by operator"""
MEMORY = {"now": 0, "peak": 0}
CURRENT = {"device": 0}
WAITS: Counter = Counter()
"""where the host waited for the device: `FILE:FUNCTION OPERATOR`, of the innermost line of ctnet"""
REFUSALS: list = []
"""functions (operator, args, kwargs) that raise for what the emulated card cannot do"""
MAY_MIX = {
    aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip


def name() -> str:
    return torch._C._get_privateuse1_backend_name()


class CardTensor(torch.Tensor):
    """A tensor on one of the devices; `host` holds its numbers, and views of it are views of `host`."""

    __slots__ = ("host",)

    @staticmethod
    def __new__(cls, host, index=None):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=torch.device(name(), CURRENT["device"] if index is None else index),
        )
        tensor.host = host
        if not host._is_view():
            _count(tensor, host.nbytes)
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):  # what `Module.to` does to parameters
        torch.Tensor.data.__set__(self, value)
        self.host = value.host

    def __repr__(self):
        return f"CardTensor({self.host!r}, device='{self.device}')"

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})


def _count(tensor, size):
    MEMORY["now"] += size
    MEMORY["peak"] = max(MEMORY["peak"], MEMORY["now"])
    weakref.finalize(tensor, _release, size)


def _release(size):
    MEMORY["now"] -= size


WHOLE = {aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec}
"""operators that cards have kernels of, and whose decomposition chooses channels-last"""


def to_host(value):
    return value.host if isinstance(value, CardTensor) else value


def run(operator, args, kwargs):
    """Run an operator: ctnet's and the vendor's by the kernel registered for the device, torch's on the host."""
    CALLS[str(operator)] += 1
    waits.count(operator, args, kwargs)
    if operator.namespace not in ("aten", "prims"):
        own = torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "PrivateUse1")
        key = torch._C.DispatchKey.PrivateUse1 if own else torch._C.DispatchKey.CompositeExplicitAutograd
        return operator._op_dk(key, *args, **kwargs)
    if operator._can_decompose() and operator not in WHOLE:  # in inference mode whole functions arrive here
        return operator.decompose(*args, **kwargs)
    for refuse in REFUSALS:
        refuse(operator, args, kwargs)
    _refuse_mixture(operator, args, kwargs)
    device = kwargs.get("device")
    stays = device is None or torch.device(device).type == name()
    cards = [leaf for leaf in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(leaf, CardTensor)]
    index = cards[0].device.index if cards else None
    if device is not None and stays and torch.device(device).index is not None:
        index = torch.device(device).index
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    known = {id(t.host): t for t in cards}
    result = operator(*pytree.tree_map(to_host, args), **pytree.tree_map(to_host, kwargs))
    if operator is aten.copy_.default:
        return args[0]

    def back(value):
        if not isinstance(value, torch.Tensor) or isinstance(value, CardTensor):
            return value
        if id(value) in known:
            return _unresized(operator, known[id(value)], value)
        if stays:
            return CardTensor(value, index)
        shared = {t.host.untyped_storage().data_ptr() for t in known.values()}
        return value.clone() if value.untyped_storage().data_ptr() in shared else value

    return pytree.tree_map(back, result)


def _unresized(operator, tensor, host):
    if tensor.shape != host.shape:
        raise RuntimeError(f"{operator} changes the size of a tensor in place, which is not emulated")
    return tensor


def _refuse_mixture(operator, args, kwargs):
    """Raise where a card would: operands of different devices."""
    leaves = pytree.arg_tree_leaves(*args, **kwargs)
    places = {leaf.device.index for leaf in leaves if isinstance(leaf, CardTensor)}
    if operator in MAY_MIX or not places:
        return
    if len(places) > 1:
        raise RuntimeError(f"{operator}: all tensors must be on one device, they are on {name()}:{sorted(places)}")
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and not isinstance(leaf, CardTensor) and leaf.dim() > 0:
            raise RuntimeError(f"{operator}: all tensors must be on {name()}, one of {tuple(leaf.shape)} is on the cpu")


def write_calls():
    """Leave the count of calls where the environment asks for it."""
    if "EMULATED_CALLS" in os.environ:
        Path(os.environ["EMULATED_CALLS"]).write_text(json.dumps(CALLS | {"waits": WAITS}))
