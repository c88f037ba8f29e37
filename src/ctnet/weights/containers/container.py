"""What every file of weights comes down to, and which part of it is the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ctnet.errors import WeightsError

Kind = Literal["torch", "torch-legacy", "pickle", "mindspore", "safetensors"]


@dataclass(frozen=True)
class Container:
    """The tensors of one network as a file holds them, on the cpu, under its own names.

    `part` is the entry of the file that they come from (`state_dict`, `model`, ...; empty for a file that is nothing
    else), `meta` is all the rest of the file that is plain: numbers, strings, lists, dicts.
    """

    kind: Kind
    tensors: Mapping[str, Tensor]
    part: str
    meta: Mapping[str, Any]


def network_part(content: object, kind: Kind, source: object) -> Container:
    """Return the network in what a file holds. Raises WeightsError when there is none."""
    if not isinstance(content, Mapping):
        raise WeightsError(
            "the file holds no dictionary of tensors",
            file=source,
            got=type(content).__name__,
            hint="save the state dict of a network, not the network itself",
        )
    part = _part_of(content)
    tensors = _tensors(content[part] if part else content, source)
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:8])
        if any("optimizer" in str(key) for key in content):
            raise WeightsError("the file holds the state of an optimizer, no weights", file=source, got=keys)
        raise WeightsError("the file holds no tensors", file=source, got=keys or "nothing")
    rest = {key: value for key, value in content.items() if key != part} if part else content
    return Container(kind, tensors, part, {str(key): plain for key, value in rest.items() if (plain := _plain(value))})


def _part_of(content: Mapping[Any, Any]) -> str:
    """Return the key of the network; empty when the content is the network itself.

    A training state of ctnet evaluates its average. What mmengine calls `state_dict` is the average already.
    """
    names = ["ema", "model"] if "recipe" in content else ["state_dict", "model", "blobs", "ema_state_dict"]
    return next((name for name in names if isinstance(content.get(name), Mapping) and content[name]), "")


def _tensors(part: Mapping[Any, Any], source: object) -> dict[str, Tensor]:
    found = {}
    for name, value in part.items():
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise WeightsError("a tensor is sparse or quantised", file=source, tensor=name)
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                "a tensor claims more numbers than the file holds", file=source, tensor=name, got=tuple(tensor.shape)
            )
        found[str(name)] = tensor.detach()
    return found


def _plain(value: object) -> Any:
    """Return what of a value is plain, None when nothing is."""
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain for key, inner in value.items() if (plain := _plain(inner)) is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None
