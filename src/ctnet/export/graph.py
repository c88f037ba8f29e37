"""The network as one graph of ordinary operators, with or without the decoding in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctnet.devices import REDUCED
from ctnet.devices.fold import fold_batch_norm
from ctnet.devices.reduced import ReducedPrecision
from ctnet.export.about import INPUT, About
from ctnet.export.atc_graph import NpuDeformConv2d
from ctnet.export.onnx_boxes import kept
from ctnet.nn import DeformConv2d
from ctnet.ops import Peaks

LARGEST = 8192  # side of an image, where the graph takes any
DeformForm = Literal["native", "decompose", "npu"]
"""`ctnet::deform_conv2d`, ordinary operators, or the node of Ascend's compiler"""


class ExportedGraph(nn.Module):
    """The last stack's outputs of a network, decoded into boxes or as they are, in the order of `About`."""

    def __init__(self, network: nn.Module, about: About) -> None:
        super().__init__()
        self.network = network
        self.names = about.output_names
        self.family = about.family
        self.settings = about.recipe.evaluation if about.output == "decoded" else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of `Instances` of a normalised batch (N,3,H,W), or its raw head outputs."""
        if self.settings is None:
            outputs = self.network(images)[-1]
        else:
            outputs = self.family.exported(self.network, images, self.settings, exported_peaks, kept).named()
        return tuple(outputs[name] for name in self.names)


def exported_peaks(logits: Tensor, top_k: int) -> Peaks:
    """Return what `ops.decode_peaks` returns, by operators that every runtime has.

    Runtimes give equal values in rising order of index, as `decode_peaks` does.
    """
    ridge = F.max_pool2d(logits, 3, stride=1, padding=1)
    strongest, index = torch.where(logits == ridge, logits, -torch.inf).flatten(1).topk(top_k)
    scores = strongest.sigmoid()
    index = torch.where(scores > 0, index, 0)
    cells = logits.shape[2] * logits.shape[3]
    labels = index // cells
    return Peaks(scores, labels, index - labels * cells)


def trace(network: nn.Module, about: About, *, dcn: DeformForm) -> torch.export.ExportedProgram:
    """Return the graph of a network with norms folded, its deformable convolutions in the form asked for."""
    dtype = REDUCED.get(about.precision)

    def prepare(part: nn.Module) -> nn.Module:
        folded = fold_batch_norm(part)
        if dcn in _LAYERS:
            for name, layer in list(folded.named_modules()):
                if isinstance(layer, DeformConv2d):
                    folded.set_submodule(name, _LAYERS[dcn](layer))
        return ReducedPrecision(folded, dtype) if dtype else folded

    graph = ExportedGraph(about.family.prepare(network.cpu().float(), prepare), about).eval()
    height, width = about.size or (256, 320)
    example = torch.zeros(about.batch or 2, 3, height, width)
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={INPUT: _dynamic(about)}, strict=False)


def _dynamic(about: About) -> dict[int, Any]:
    dims: dict[int, Any] = {}
    if about.batch is None:
        dims[0] = torch.export.Dim("batch", min=1, max=1 << 16)
    if about.size is None:
        multiple = about.recipe.model.size_multiple
        for axis, name in ((2, "height"), (3, "width")):
            dims[axis] = multiple * torch.export.Dim(f"{name}_{multiple}", min=2, max=LARGEST // multiple)
    return dims


class SampledConv2d(nn.Module):
    """A `DeformConv2d` by `grid_sample` and matrix products alone, for runtimes that lack the operator."""

    def __init__(self, layer: DeformConv2d) -> None:
        super().__init__()
        self.offset_mask, self.weight, self.bias = layer.offset_mask, layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer returns: nine samplings, each times its mask and its tap of the weight."""
        side = self.offset_mask(x)
        offset, mask = side[:, :18], side[:, 18:].sigmoid()
        height, width = x.shape[2], x.shape[3]
        rows = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
        columns = torch.arange(width, dtype=x.dtype, device=x.device)[None]
        sampled = []
        for tap in range(9):
            y = rows + (tap // 3 - 1) + offset[:, 2 * tap]
            z = columns + (tap % 3 - 1) + offset[:, 2 * tap + 1]
            grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], -1)
            sampled.append(F.grid_sample(x, grid, align_corners=False) * mask[:, tap : tap + 1])
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
        return F.conv2d(torch.cat(sampled, 1), weight, self.bias)


_LAYERS: dict[DeformForm, Callable[[DeformConv2d], nn.Module]] = {"decompose": SampledConv2d, "npu": NpuDeformConv2d}
