"""The network in a checkpoint, and the plain values beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.errors import WeightsError
from ctnet.limits import NAME_BYTES, PLAIN_DEPTH, PLAIN_VALUES
from ctnet.weights.containers.inert import Array
from ctnet.weights.containers.refusals import damaged, no_weights
from ctnet.weights.containers.torch_tensors import Unusual

NESTED = (
    *(
        "state_dict_ema",
        "model_ema",
        "ema_model",
        "ema",
        "params_ema",
        "teacher",
    ),  # of timm, DETR, DINO
    *("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params", "module"),
    *("student", "backbone", "encoder", "blobs"),  # the last is Caffe2's
    "ema_state_dict",  # mmengine's, whose `state_dict` holds the averages already where both are there
)
"""Keys that hold the network, in the order in which they are tried; averages of weights come before the weights."""
_BESIDE = ("optim", "sched", "scaler")  # how the names of other states begin
_DEPTH = 4  # of keys in keys

_TENSORS = (Tensor, Array, Unusual)


def split(tree: Any, path: Path) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Return the name of the part that holds the network, its tensors, and all that is plain in the file.

    Tensors and arrays outside the network, and whatever is neither plain nor a tensor, are left out.
    Raises WeightsError when no part holds tensors, or one of them is malformed.
    """
    found = _network(tree) if isinstance(tree, dict) else None
    if found is None:
        raise _no_network(tree, path)
    part, network = found
    tensors = {}
    for name, value in network.items():
        if isinstance(name, str) and isinstance(value, _TENSORS):
            tensors[name] = _tensor(value, name, path)
    try:
        meta = _Plain().dictionary(tree, 0)
    except ValueError as error:
        raise damaged(path, error) from None
    return part, tensors, meta


def _network(tree: Mapping[Any, Any], part: str = "") -> tuple[str, Mapping[Any, Any]] | None:
    """Return the first part that holds tensors, or the only one under an unknown key.

    `model` may hold a `state_dict` in its turn.
    """
    for key in NESTED:
        if isinstance(tree.get(key), dict) and part.count(".") < _DEPTH:
            found = _network(tree[key], f"{part}.{key}".lstrip("."))
            if found:
                return found
    if _holds_tensors(tree):
        return part, tree
    keys = _unknown_keys(tree)
    return (f"{part}.{keys[0]}".lstrip("."), tree[keys[0]]) if len(keys) == 1 else None


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(entry, _TENSORS) for entry in value.values())


def _unknown_keys(tree: Mapping[Any, Any]) -> list[str]:
    """Return the keys that hold tensors by name, except for states of optimizers and the like."""
    return [key for key in tree if isinstance(key, str) and not key.startswith(_BESIDE) and _holds_tensors(tree[key])]


def _no_network(tree: Any, path: Path) -> WeightsError:
    if not isinstance(tree, dict):
        return no_weights(path, f"one object of the class {type(tree).__name__}, not a dictionary of tensors")
    if "optimizer" in tree:
        return no_weights(path, "the state of an optimizer without its network", "look for the file beside it")
    if several := _unknown_keys(tree):
        keys = ", ".join(ascii(key)[:40] for key in several[:5])
        return no_weights(path, f"tensors under several keys: {keys}", "save one of them, as a file of its own")
    keys = ", ".join(ascii(key)[:40] for key in list(tree)[:5])
    return no_weights(path, f"no tensors under any known key; the keys are {keys or 'none'}")


def _tensor(value: Tensor | Array | Unusual, name: str, path: Path) -> Tensor:
    """Return an ordinary tensor on the CPU, after a check that its storage is large enough."""
    if isinstance(value, Array):
        if value.values is None:
            raise damaged(path, f"{name} is an array without content")
        return torch.from_numpy(value.values)
    if isinstance(value, Unusual):
        raise damaged(path, f"{name} is no ordinary tensor")
    wanted, there = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if wanted > there:
        raise damaged(path, f"{name} of shape {tuple(value.shape)} needs {wanted} bytes and has {there}")
    return value


class _Plain:
    """Copies what is plain. Values are counted, for a pickle can name one list a million times."""

    def __init__(self) -> None:
        self._values = 0

    def dictionary(self, tree: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        """Return the entries that are plain; one from which everything was left out is left out too."""
        copy = {}
        for key, value in tree.items():
            name = self._value(key, depth) if isinstance(key, str | int) else None
            plain = self._value(value, depth + 1)
            if name is not None and plain is not None and (plain != {} or not value):
                copy[name] = plain
        return copy

    def _value(self, value: Any, depth: int) -> Any:
        """Return a copy, or None for what is not plain."""
        self._values += 1 + (len(value) // NAME_BYTES.most if isinstance(value, str) else 0)
        PLAIN_VALUES.check(self._values)
        PLAIN_DEPTH.check(depth)
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()  # halves of characters cannot be printed
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if value.bit_length() < 64 else None
        if isinstance(value, dict):
            return self.dictionary(value, depth)
        if isinstance(value, list | tuple):
            return [self._value(item, depth + 1) for item in value]
        return None
