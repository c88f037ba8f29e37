"""A network for inference in bf16 or fp16 that takes and returns float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

# A float32 copy of this size stays in a CPU's cache until it is multiplied, and needs no fresh pages.
_PIECE_BYTES = 2 << 20


class _Float32(nn.Module):
    """A layer that computes in float32 from inputs of any type."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *more: Any) -> Any:
        """Return the layer's float32 output."""
        # torch.compile fuses the copy into the operator before
        if x.is_cpu and _cell_by_cell(self.layer) and not torch.compiler.is_compiling():
            row_bytes = 4 * x.shape[0] * x.shape[1] * x.shape[3]
            pieces = torch.split(x, max(1, _PIECE_BYTES // max(1, row_bytes)), 2)
            return torch.cat([self.layer(piece.float()) for piece in pieces], 2)
        return self.layer(x.float(), *more)


def _cell_by_cell(layer: nn.Module) -> bool:
    """Return whether an output cell depends on the input cell at its place only, so that rows can go one by one."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0)


class ReducedPrecision(nn.Module):
    """The network in a reduced type, except for the last layer of every output, which stays float32.

    Maps that further layers read, too, such as the levels of a pyramid, are no such outputs and stay in that type.
    bf16 resolves a 60-cell side only to 0.25 cell; a last layer in float32 costs little and keeps boxes as precise as
    the features allow.
    """

    def __init__(self, graph: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        outputs = graph.graph.output_node().all_input_nodes
        last = {str(node.target) for node in outputs if node.op == "call_module" and len(node.users) == 1}
        layers = {name: graph.get_submodule(name) for name in last}
        for name in last:  # removed, so that their weights are not rounded
            graph.set_submodule(name, nn.Identity())
        self.network = graph.to(dtype)
        for name, layer in layers.items():
            graph.set_submodule(name, _Float32(layer))

    def forward(self, x: Tensor) -> object:
        """Return what the network returns, its last layers' outputs in float32."""
        return self.network(x.to(self.dtype))
