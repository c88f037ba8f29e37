"""Batch normalisation disappears into the convolution before it: the same function with fewer passes over the maps."""

from __future__ import annotations

import copy
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


def _is_convolution(module: nn.Module) -> bool:
    """Return whether a norm can be folded into this layer's `weight` and `bias`.

    Layers that torch does not know say so by an attribute `is_convolution`.
    """
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) or getattr(module, "is_convolution", False)


class _Tracer(fx.Tracer):
    """Sees a layer of ctnet.nn, or any other kind of convolution, as one step, like one of torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = type(m).__module__.startswith("ctnet.nn.")
        return own or _is_convolution(m) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """Return the network as a graph of layers and functions. It shares its weights."""
    tracer = _Tracer()
    graph = tracer.trace(network)
    for node in graph.nodes:
        node.type = None  # annotations that are text, with which torch cannot pickle the graph
    return fx.GraphModule(tracer.root, graph, type(network).__name__)


def fold_batch_norm(network: nn.Module) -> fx.GraphModule:
    """Return a copy of the network for inference in which every norm right after a convolution is part of it.

    Outputs differ from those of the network in evaluation mode by rounding only.
    """
    folded = trace(copy.deepcopy(network).eval())
    modules = dict(folded.named_modules())
    for node in list(folded.graph.nodes):
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if node.op != "call_module" or source is None or source.op != "call_module" or len(source.users) > 1:
            continue
        norm, convolution = modules[str(node.target)], modules[str(source.target)]
        if isinstance(norm, nn.BatchNorm2d) and _is_convolution(convolution):
            _fold(convolution, norm)
            with folded.graph.inserting_before(node):
                node.replace_all_uses_with(_what_follows(folded.graph, node, norm))
            folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def _what_follows(graph: fx.Graph, node: fx.Node, norm: nn.BatchNorm2d) -> fx.Node:
    """Return the convolution's output with the shortcut and the ReLU of the norm that was folded into it."""
    result, *shortcut = (argument for argument in node.args if isinstance(argument, fx.Node))
    if shortcut:
        result = graph.call_function(operator.add, (result, shortcut[0]))
    if getattr(norm, "relu", False):  # a layer of ctnet.nn
        result = graph.call_function(F.relu, (result,), {"inplace": True})
    return result


@torch.no_grad()
def _fold(convolution: nn.Module, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.affine:
        shift = shift + norm.bias
    weight, bias = convolution.weight, convolution.bias
    assert isinstance(weight, Tensor)
    if isinstance(bias, Tensor):
        shift = shift + bias * scale
    weight.copy_(_scaled(convolution, scale))
    convolution.bias = nn.Parameter(shift, requires_grad=False)


def _scaled(convolution: nn.Module, scale: Tensor) -> Tensor:
    """Return the weight with each filter scaled; a transposed convolution keeps its filters in the second place."""
    weight = convolution.weight
    assert isinstance(weight, Tensor)
    if not isinstance(convolution, nn.ConvTranspose2d):
        return weight * scale[:, None, None, None]
    by_group = weight.reshape(convolution.groups, -1, *weight.shape[1:])
    return (by_group * scale.reshape(convolution.groups, 1, -1, 1, 1)).reshape(weight.shape)
