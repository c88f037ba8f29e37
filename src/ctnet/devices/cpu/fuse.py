"""Layers for inference on a CPU: weights in the layout of oneDNN, and what follows a layer computed with it.

A convolution, the shortcut added to it and the ReLU after that take one pass over the map instead of three, and no
weight is brought into another order in every call.
"""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


def fuse_layers(graph: fx.GraphModule) -> None:
    """Replace convolutions and linear layers of a graph in evaluation mode, in place, where oneDNN has them.

    Outputs differ by rounding only.
    """
    if not _works():
        return
    modules = dict(graph.named_modules())
    packed: dict[str, Tensor] = {}
    for number, node in enumerate(list(graph.graph.nodes)):
        name = str(node.target)
        layer = modules.get(name) if node.op == "call_module" else None
        if layer is None or type(layer) not in _FUSED or not _is_packable(layer):
            continue
        if name not in packed:
            packed[name] = _pack(layer)
        last, shortcut = _with_shortcut(node, layer)
        relu = _only_user(last)
        has_relu = relu is not None and _is_relu(relu, modules)
        if relu is not None and has_relu:
            last = relu
        graph.add_submodule(f"fused_{number}", _FUSED[type(layer)](layer, packed[name], has_relu))
        with graph.graph.inserting_before(last):
            inputs = (node.args[0],) if shortcut is None else (node.args[0], shortcut)
            result = graph.graph.call_module(f"fused_{number}", inputs)
        last.replace_all_uses_with(result)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()


def _works() -> bool:
    """Return whether this build of torch has the fused layers, and this kind of CPU runs them."""
    has_layers = all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", "_linear_pointwise"))
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_layers and has_onednn and platform.machine() in ("x86_64", "AMD64")


def _is_packable(layer: nn.Module) -> bool:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    zeros = not isinstance(layer, nn.Conv2d) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
    has_type = weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    # oneDNN's ReLU makes zeros of NaN, which would hide that a network is spoiled
    finite = all(bool(t.isfinite().all()) for t in (weight, layer.bias) if isinstance(t, Tensor))
    return zeros and has_type and weight.is_cpu and weight.numel() > 0 and finite


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _with_shortcut(node: fx.Node, layer: nn.Module) -> tuple[fx.Node, fx.Node | None]:
    """Return the sum after a convolution and the other addend, or the convolution and None."""
    following = _only_user(node)
    # with groups, torch adds in a pass of its own
    if not isinstance(layer, nn.Conv2d) or layer.groups > 1 or following is None or following.op != "call_function":
        return node, None
    others = [argument for argument in following.args if argument is not node]
    if following.target not in (operator.add, torch.add) or following.kwargs or len(others) != 1:
        return node, None
    return (following, others[0]) if isinstance(others[0], fx.Node) else (node, None)


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return node.op == "call_function" and node.target in (F.relu, torch.relu)


@torch.no_grad()
def _pack(layer: nn.Module) -> Tensor:
    """Return the weight in the order that oneDNN multiplies it in; it suits inputs of any size."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    packed: Tensor
    if isinstance(layer, nn.Conv2d):
        padding, stride, dilation = list(layer.padding), list(layer.stride), list(layer.dilation)
        packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
            weight.detach().to_mkldnn(), padding, stride, dilation, layer.groups
        )
    else:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed


class _Fused(nn.Module):
    """A layer whose weight is packed; it may end in a ReLU."""

    bias: Tensor | None

    def __init__(self, layer: nn.Module, packed: Tensor, relu: bool) -> None:
        super().__init__()
        self.packed = packed  # no parameter: torch can neither copy nor move it
        self.bias = layer.bias  # type: ignore[assignment]
        self.unary = "relu" if relu else "none"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": self.packed.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.packed = self._packed_again(self.packed)

    def _packed_again(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight)  # type: ignore[no-any-return]


class FusedConv2d(_Fused):
    """A convolution, the sum with a shortcut and the ReLU of both."""

    def __init__(self, layer: nn.Conv2d, packed: Tensor, relu: bool) -> None:
        super().__init__(layer, packed, relu)
        self.window = ([*layer.padding], [*layer.stride], [*layer.dilation], layer.groups)
        self.shape = tuple(layer.weight.shape)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Return (N,O,H,W)."""
        if x.numel() == 0 or x.dtype != self.packed.dtype or x.dim() != 4:
            return self._apart(x, shortcut)
        x = x.contiguous(memory_format=torch.channels_last)
        given = (self.packed, self.bias, *self.window)
        convolve = torch.ops.mkldnn._convolution_pointwise
        if shortcut is None:
            return convolve(x, *given, self.unary, [], "")  # type: ignore[no-any-return]
        if shortcut.dtype != x.dtype or shortcut.shape != self._result(x):
            return self._apart(x, shortcut)
        relu = "relu" if self.unary == "relu" else None
        shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        return convolve.binary(x, shortcut, *given, "add", 1.0, relu, [], None)  # type: ignore[no-any-return]

    def _packed_again(self, weight: Tensor) -> Tensor:
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self.window)

    def _result(self, x: Tensor) -> tuple[int, ...]:
        sides = zip(x.shape[2:], self.shape[2:], *self.window[:3], strict=True)
        return x.shape[0], self.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, s, d in sides)

    def _apart(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """Return the same by torch's own operators, for inputs that oneDNN does not take."""
        padding, stride, dilation, groups = self.window
        y = F.conv2d(x, self.packed.to_dense(), self.bias, stride, padding, dilation, groups)
        y = y if shortcut is None else y + shortcut
        return F.relu(y) if self.unary == "relu" else y


class FusedLinear(_Fused):
    """A linear layer and the ReLU after it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (...,O)."""
        if x.numel() == 0 or x.dtype != self.packed.dtype:
            y = F.linear(x, self.packed.to_dense(), self.bias)
            return F.relu(y) if self.unary == "relu" else y
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, self.unary, [], "")  # type: ignore[no-any-return]


_FUSED: dict[type, Callable[..., _Fused]] = {nn.Conv2d: FusedConv2d, nn.Linear: FusedLinear}
