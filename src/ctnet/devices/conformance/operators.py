"""Operators on the device against the references on the host: values and every gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.codec.decode import move_to_peaks, point_peaks
from ctnet.devices.conformance.result import Check, deviation, need
from ctnet.devices.registry import OpenDevice
from ctnet.ops import decode_peaks, deform_conv2d, depthwise_upsample, nms, soft_nms
from ctnet.ops.batch_norm import batch_norm
from ctnet.ops.max_pool import max_pool2d
from ctnet.ops.table import OPERATORS


class _Deform(NamedTuple):
    """A call of deform_conv2d; `kernel`, `stride`, `padding`, `dilation` are (rows, columns)."""

    images: int = 2
    channels: int = 6
    map_hw: tuple[int, int] = (7, 5)
    filters: int = 4
    groups: int = 1
    deform_groups: int = 1
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    has_mask: bool = True
    has_bias: bool = True
    bad: str = ""  # "offsets" or "numbers" that are not finite


_DEFORM = {
    "3x3": _Deform(),
    "wide and even": _Deform(channels=64, map_hw=(16, 24), filters=32),
    "one row": _Deform(images=1, map_hw=(1, 11)),
    "one pixel": _Deform(images=1, map_hw=(1, 1)),
    "kernel 2x3, stride 2x1, dilation 1x2": _Deform(
        map_hw=(9, 10), kernel=(2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)
    ),
    "groups 2": _Deform(groups=2),
    "deformable groups 3": _Deform(deform_groups=3),
    "no mask, no bias": _Deform(has_mask=False, has_bias=False),
    "offsets that are not finite": _Deform(bad="offsets"),
    "numbers that are not finite": _Deform(bad="numbers", deform_groups=2),
    "no images": _Deform(images=0),
}
_BAD = "not finite"
_UPSAMPLE = {
    "by 2": ((2, 5, 7, 5), 4, 2, 1),
    "by 4": ((1, 3, 3, 9), 8, 4, 2),
    "no images": ((0, 5, 7, 5), 4, 2, 1),
    _BAD: ((2, 5, 7, 5), 4, 2, 1),
}
_PEAKS = {
    "ties and plateaus": ((2, 5, 17, 23), 40),
    "more places than peaks": ((3, 8, 4, 5), 200),
    "one column": ((1, 1, 9, 1), 3),
    "no images": ((0, 3, 4, 5), 7),
    _BAD: ((2, 5, 17, 23), 40),
}


def operator_checks(device: OpenDevice) -> Iterator[tuple[str, Check]]:
    """Yield the checks of every operator that ctnet calls on the device."""
    for operator, label, dtype, check in _cases(device.plugin.autocast_dtypes()):
        if OPERATORS[operator].runs_for(torch.empty(0, dtype=dtype, device=device.torch_device)):
            yield f"{operator}, {label}", partial(check, device)
    yield "key points, decoding", partial(_keypoints, device)


def _cases(reduced: Sequence[torch.dtype]) -> Iterator[tuple[str, str, torch.dtype, Callable[[OpenDevice], str]]]:
    """Yield the operator, a label, the type of the inputs and the check of each case."""
    full = torch.float32
    for label, case in _DEFORM.items():
        yield "deform_conv2d", label, full, partial(_deform, case=case, dtype=None)
    for dtype in reduced:
        wide = partial(_deform, case=_DEFORM["wide and even"], dtype=dtype)
        yield "deform_conv2d", f"autocast {_short(dtype)}", full, wide
    for label, (shape, *window) in _UPSAMPLE.items():
        bad = label == _BAD
        yield "depthwise_upsample", label, full, partial(_upsample, shape=shape, window=window, dtype=None, bad=bad)
    for dtype in reduced:
        shape, *window = _UPSAMPLE["by 2"]
        by_two = partial(_upsample, shape=shape, window=window, dtype=dtype)
        yield "depthwise_upsample", f"autocast {_short(dtype)}", full, by_two
    for dtype in (full, *reduced):
        for label, adds in (("ReLU", False), ("shortcut and ReLU", True)):
            yield "batch_norm", f"{label}, {_short(dtype)}", dtype, partial(_batch_norm, dtype=dtype, adds=adds)
        yield "max_pool2d", _short(dtype), dtype, partial(_max_pool, dtype=dtype)
    for label, (size, top_k) in _PEAKS.items():
        yield "decode_peaks", label, full, partial(_peaks, shape=size, top_k=top_k, dtype=full, bad=label == _BAD)
    for dtype in reduced:
        yield "decode_peaks", _short(dtype), dtype, partial(_peaks, shape=(2, 5, 17, 23), top_k=40, dtype=dtype)
    for label, count in (("0 boxes", 0), ("1 box", 1), ("90 boxes", 90), (_BAD, 90)):
        yield "nms", label, full, partial(_nms, count=count, bad=label == _BAD)
        yield "soft_nms", label, full, partial(_soft_nms, count=count, bad=label == _BAD)


def _exactly(operator: str, *arguments: object) -> Any:
    """Return what the reference of an operator returns."""
    return OPERATORS[operator].reference(*arguments)


def _bound(operator: str, dtype: torch.dtype | None = None) -> float:
    return OPERATORS[operator].tolerances[dtype or torch.float32]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _deform(device: OpenDevice, case: _Deform, dtype: torch.dtype | None) -> str:
    inputs = _deform_inputs(case)
    sampling = (case.stride, case.padding, case.dilation)
    leaves = {name: _leaf(t, device) for name, t in inputs.items()}
    with nullcontext() if dtype is None else device.plugin.autocast(dtype):
        result = deform_conv2d(
            leaves["input"], leaves["offset"], leaves["weight"], leaves.get("bias"), *sampling, leaves.get("mask")
        )
    need(result.dtype == (dtype or torch.float32), f"the result is {result.dtype}")
    # the rounded inputs of the device, multiplied exactly
    exact = {
        name: (t if dtype is None or name in ("offset", "mask") else t.to(dtype)).double() for name, t in inputs.items()
    }
    lists = [list(pair) for pair in sampling]
    sides = (exact["input"], exact["offset"], exact["weight"])
    expected = _exactly("deform_conv2d", *sides, exact.get("bias"), exact.get("mask"), *lists)
    bound = _bound("deform_conv2d", dtype)
    worst = deviation(result, expected, "result", bound)
    grad = torch.randn(expected.shape, generator=_generator()).to(result.dtype)
    result.backward(grad.to(device.torch_device))  # type: ignore[no-untyped-call]
    grads = _exactly("deform_conv2d_backward", grad.double(), *sides, exact.get("mask"), *lists)
    wanted = dict(zip(("input", "offset", "weight", "mask"), grads, strict=True))
    wanted["bias"] = grad.double().sum((0, 2, 3))
    for name, leaf in leaves.items():
        need(leaf.grad is not None, f"{name} has no gradient")
        assert leaf.grad is not None
        worst = max(worst, deviation(leaf.grad, wanted[name], f"gradient of {name}", bound))
    return f"{worst:.0e}"


def _leaf(tensor: Tensor, device: OpenDevice) -> Tensor:
    """Return a copy on the device that collects a gradient."""
    return tensor.clone().to(device.torch_device).requires_grad_()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _deform_inputs(case: _Deform) -> dict[str, Tensor]:
    generator = _generator()
    taps = case.kernel[0] * case.kernel[1]
    out = [
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, padding, dilation in zip(
            case.map_hw, case.kernel, case.stride, case.padding, case.dilation, strict=True
        )
    ]
    offset = torch.randn(case.images, 2 * case.deform_groups * taps, *out, generator=generator) * 2
    if case.bad == "offsets":
        offset[0, 0], offset[0, 1], offset[1, 3], offset[1, 4] = torch.nan, torch.inf, -torch.inf, 1e30
    tensors = {
        "input": torch.randn(case.images, case.channels, *case.map_hw, generator=generator),
        "offset": offset,
        "weight": torch.randn(case.filters, case.channels // case.groups, *case.kernel, generator=generator),
    }
    if case.has_bias:
        tensors["bias"] = torch.randn(case.filters, generator=generator)
    if case.has_mask:
        tensors["mask"] = torch.rand(case.images, case.deform_groups * taps, *out, generator=generator)
    if case.bad == "numbers":
        tensors["input"][0, 1, 0, 0], tensors["input"][1, 4, 3, 2] = torch.nan, torch.inf
        tensors["mask"][0, 4, 5, 1] = torch.nan
        tensors["offset"][1, 6, 2, 2] = tensors["mask"][1, 3, 2, 2] = torch.nan  # such a sample is outside
    return tensors


def _upsample(
    device: OpenDevice, shape: tuple[int, ...], window: list[int], dtype: torch.dtype | None, *, bad: bool = False
) -> str:
    generator, (kernel, stride, padding) = _generator(), window
    inputs = [torch.randn(size, generator=generator) for size in (shape, (shape[1], 1, kernel, kernel))]
    if bad:
        inputs[0][0, 1, 2, 3], inputs[0][1, 0, 6, 4] = torch.nan, torch.inf
    leaves = [_leaf(t, device) for t in inputs]
    with nullcontext() if dtype is None else device.plugin.autocast(dtype):
        result = depthwise_upsample(leaves[0], leaves[1], stride, padding)
    need(result.dtype == (dtype or torch.float32), f"the result is {result.dtype}")
    exact = [t.to(dtype or torch.float32).double().detach().requires_grad_() for t in inputs]
    expected = F.conv_transpose2d(exact[0], exact[1], stride=stride, padding=padding, groups=shape[1])
    bound = _bound("depthwise_upsample", dtype)
    worst = deviation(result, expected, "result", bound)
    grad = torch.randn(expected.shape, generator=generator).to(result.dtype)
    result.backward(grad.to(device.torch_device))  # type: ignore[no-untyped-call]
    expected.backward(grad.double())  # type: ignore[no-untyped-call]
    for name, leaf, wanted in zip(("input", "weight"), leaves, exact, strict=True):
        assert leaf.grad is not None
        assert wanted.grad is not None
        spread = 2 if bad and name == "weight" else 0  # how far within a channel is left to the device
        worst = max(worst, deviation(leaf.grad[spread:], wanted.grad[spread:], f"gradient of {name}", bound))
    return f"{worst:.0e}"


def _batch_norm(device: OpenDevice, dtype: torch.dtype, adds: bool) -> str:
    generator, shape = _generator(), (2, 35, 9, 11)
    inputs = [torch.randn(shape, generator=generator).to(dtype)]
    inputs += [torch.randn(shape[1], generator=generator) for _ in range(2)]
    inputs += [torch.randn(shape, generator=generator).to(dtype)] * adds
    leaves = [_leaf(t, device) for t in inputs]
    x, weight, bias, *others = leaves
    result, *statistics = batch_norm(x, weight, bias, others[0] if adds else None, relu=True)
    need(result.dtype == dtype, f"the result is {result.dtype}")
    exact = [t.double() for t in inputs]
    shortcut = exact[3] if adds else None
    expected, mean, variance = _exactly("batch_norm", *exact[:3], shortcut, True, 1e-5)
    worst = deviation(result, expected, "result", _bound("batch_norm", dtype))
    for name, got, moment in zip(("mean", "variance"), statistics, (mean, variance), strict=True):
        worst = max(worst, deviation(got, moment, name, _bound("batch_norm")))
    grad = torch.randn(shape, generator=generator).to(dtype)
    result.backward(grad.to(device.torch_device))  # type: ignore[no-untyped-call]
    # the ReLU mask is that of the device: rounding may move a value across zero
    opened = grad.double() * (result.detach().cpu() > 0)
    forward = (exact[0], expected, *exact[1:3], mean, variance)
    wanted = _exactly("batch_norm_backward", opened, *forward, False, adds, 1e-5)
    for name, leaf, gradient in zip(("input", "weight", "bias", "shortcut"), leaves, wanted, strict=False):
        assert leaf.grad is not None
        worst = max(worst, deviation(leaf.grad, gradient, f"gradient of {name}", _bound("batch_norm_backward", dtype)))
    return f"{worst:.0e}"


def _max_pool(device: OpenDevice, dtype: torch.dtype) -> str:
    generator = _generator()
    leaf = _leaf(torch.randint(-4, 5, (2, 35, 9, 12), generator=generator).to(dtype), device)
    result, taps = max_pool2d(leaf, 3, 2, 1)
    expected, wanted = _exactly("max_pool2d", leaf.detach().cpu(), 3, 2, 1)
    need(torch.equal(result.detach().cpu(), expected), "values differ")
    need(torch.equal(taps.cpu(), wanted), "places differ: of equal values the first counts")
    grad = torch.randn(expected.shape, generator=generator).to(dtype)
    result.backward(grad.to(device.torch_device))  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    gradient = _exactly("max_pool2d_backward", grad.double(), wanted, 9, 12, 3, 2, 1)
    bound = _bound("max_pool2d_backward", dtype)
    return f"{deviation(leaf.grad, gradient, 'gradient of input', bound):.0e}"


def _peaks(device: OpenDevice, shape: tuple[int, ...], top_k: int, dtype: torch.dtype, *, bad: bool = False) -> str:
    logits = torch.randint(-6, 7, shape, generator=_generator()).to(dtype) / 2
    if bad:
        logits[0, 0, 3, 3], logits[0, 1, 8, 8], logits[0, 2, 16, 22] = torch.nan, torch.inf, -torch.inf
        logits[1, 4] = torch.nan
    peaks = decode_peaks(logits.to(device.torch_device), top_k)
    scores, labels, cells = _exactly("decode_peaks", logits, top_k)
    need(peaks.scores.dtype == torch.float32, f"scores are {peaks.scores.dtype}")
    need(torch.equal(peaks.labels.cpu(), labels), "labels differ")
    need(torch.equal(peaks.cells.cpu(), cells), "cells differ: equal peaks come in rising order of class and cell")
    return f"{deviation(peaks.scores, scores, 'scores', _bound('decode_peaks', dtype)):.0e}"


def _boxes(count: int, bad: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = _generator()
    corner = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 20], 1)
    scores = torch.randint(0, 40, (count,), generator=generator) / 40
    if bad:
        scores[::7], boxes[3::9, 1], boxes[5::11, 2] = torch.nan, torch.nan, torch.inf
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


def _nms(device: OpenDevice, count: int, *, bad: bool = False) -> str:
    boxes, scores, labels = _boxes(count, bad)
    there = device.torch_device
    kept = nms(boxes.to(there), scores.to(there), labels.to(there), 0.4)
    need(torch.equal(kept.cpu(), _exactly("nms", boxes, scores, labels, 0.4, False)), "other boxes are kept")
    return "equal"


def _soft_nms(device: OpenDevice, count: int, *, bad: bool = False) -> str:
    boxes, scores, _ = _boxes(count, bad)
    decayed = soft_nms(boxes.to(device.torch_device), scores.to(device.torch_device))
    expected = _exactly("soft_nms", boxes, scores, "gaussian", 0.5, 0.5, 0.001, True)
    return f"{deviation(decayed, expected, 'scores', _bound('soft_nms')):.0e}"


def _keypoints(device: OpenDevice) -> str:
    """Move regressed key points to the peaks of their heatmaps on the device and on the host."""
    generator, there = _generator(), device.torch_device
    logits = torch.randn(2, 5, 13, 17, generator=generator)
    offset = torch.rand(2, 2, 13, 17, generator=generator)
    corner = torch.rand(2, 20, 2, generator=generator) * torch.tensor([12.0, 8.0])
    boxes = torch.cat([corner, corner + 3 + 6 * torch.rand(2, 20, 2, generator=generator)], 2)
    points = (corner + 3).unsqueeze(2) + torch.randn(2, 20, 5, 2, generator=generator)

    def decoded(where: torch.device) -> Tensor:
        found = point_peaks(logits.to(where), offset.to(where), 20, decode_peaks)
        return move_to_peaks(points.to(where), boxes.to(where), *found)

    expected = decoded(torch.device("cpu"))
    moved = (expected != points).any(-1).float().mean()
    need(0.1 < float(moved) < 0.9, "points of both kinds are compared")
    return f"{deviation(decoded(there), expected, 'points', _bound('decode_peaks')):.0e}"
