"""Operators that run on the CPU for another device: NMS, which is small and sequential, and what a device lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ctnet.devices.torch_device import Kernels
from ctnet.devices.vendor import first_line


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, plus_one: bool, limit: int | None = None
) -> Tensor:
    """Return what the kernel of the CPU returns, on the device of the boxes."""
    kept: Tensor = torch.ops.ctnet.nms(boxes.cpu(), scores.cpu(), labels.cpu(), iou_threshold, plus_one, limit)
    return kept.to(boxes.device)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    sigma: float,
    iou_threshold: float,
    score_floor: float,
    plus_one: bool,
) -> Tensor:
    """Return what the kernel of the CPU returns, on the device of the boxes."""
    arguments = (method, sigma, iou_threshold, score_floor, plus_one)
    decayed: Tensor = torch.ops.ctnet.soft_nms(boxes.cpu(), scores.cpu(), *arguments)
    return decayed.to(boxes.device)


KERNELS: Kernels = {"nms": nms, "soft_nms": soft_nms}
REASON = "CPU (a few hundred boxes at most, processed one after the other)"


class Tried(NamedTuple):
    """Kernels of a device after a trial, and the reasons for those that run on the CPU in their place."""

    kernels: Kernels
    failures: dict[str, str]


_TRIED: dict[tuple[str, str], tuple[Callable[..., object], str | None]] = {}


def tried(kernels: Kernels, where: torch.device) -> Tried:
    """Call each kernel once with little data on the device; one that fails is replaced by a round trip over the CPU."""
    for name, kernel in kernels.items():
        key = (where.type, name)
        if key not in _TRIED:
            try:
                outputs = kernel(*tree_map(lambda value: _onto(value, where), _TRIALS[name]))
                tree_map(lambda value: _onto(value, torch.device("cpu")), outputs)  # waits for the device
                _TRIED[key] = kernel, None
            except Exception as error:  # an operator of torch that the vendor has not written, a wrong type, ...
                _TRIED[key] = _round_trip(name), f"CPU round trip (it fails on the device: {first_line(error)})"
    chosen = {name: _TRIED[where.type, name] for name in kernels}
    failures = {name: reason for name, (_, reason) in chosen.items() if reason is not None}
    return Tried({name: kernel for name, (kernel, _) in chosen.items()}, failures)


def _onto(value: object, where: torch.device) -> object:
    return value.to(where) if isinstance(value, Tensor) else value


@cache  # a second registration finds the same kernel
def _round_trip(name: str) -> Callable[..., object]:
    def kernel(*arguments: object) -> object:
        where = next(value.device for value in arguments if isinstance(value, Tensor))
        moved = tree_map(lambda value: _onto(value, torch.device("cpu")), arguments)
        return tree_map(lambda value: _onto(value, where), getattr(torch.ops.ctnet, name)(*moved))

    return kernel


def round_trips(*names: str) -> Kernels:
    """Return kernels that compute operators of these names on the CPU."""
    return {name: _round_trip(name) for name in names}


_MAP, _OFFSET, _WEIGHT, _MASK = (
    torch.ones(1, 2, 4, 4),
    torch.full((1, 18, 4, 4), 0.5),
    torch.ones(2, 2, 3, 3),
    torch.ones(1, 9, 4, 4),
)
_WINDOW = ([1, 1], [1, 1], [1, 1])
_TRIALS: dict[str, tuple[object, ...]] = {
    "deform_conv2d": (_MAP, _OFFSET, _WEIGHT, None, _MASK, *_WINDOW),
    "deform_conv2d_backward": (_MAP, _MAP, _OFFSET, _WEIGHT, _MASK, *_WINDOW),
    "decode_peaks": (_MAP, 3),
}
