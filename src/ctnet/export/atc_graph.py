"""The graph that ATC takes, the compiler of Ascend's chips: its own deformable convolution, and operators it knows.

Two dialects: `npu` is opset 18 with `npu::1::NPUDeformableConv2d`, what torch_npu exports; `ai.onnx` is opset 11 with
`DeformableConv2D` in the one domain, for older CANN, whose parsers refuse a second domain (E16005). Attributes and
their lengths are those that the parser plug-ins of hicann/ops-nn read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

from ctnet.errors import WeightsError
from ctnet.export import onnx_graph
from ctnet.export.about import About
from ctnet.export.options import Dialect
from ctnet.nn import DeformConv2d

OPSETS: dict[Dialect, int] = {"npu": 18, "ai.onnx": 11}
DOMAIN = "npu"
NPU_NODE = "NPUDeformableConv2d"
OLD_NODE = "DeformableConv2D"


class NpuDeformConv2d(nn.Module):
    """A `DeformConv2d` that becomes the vendor's node when exported. It computes nothing in torch.

    The node takes positions as all dx, then all dy, then all masks. The side convolution gives them in that order,
    its filters being put so once and for all.
    """

    def __init__(self, layer: DeformConv2d) -> None:
        super().__init__()
        order = torch.tensor([*range(1, 18, 2), *range(0, 18, 2), *range(18, 27)])
        self.offset_mask = nn.Conv2d(layer.weight.shape[1], 27, 3, padding=1)
        self.offset_mask.load_state_dict({k: v[order] for k, v in layer.offset_mask.state_dict().items()})
        self.weight = layer.weight
        # the node has no form without
        self.bias = nn.Parameter(torch.zeros(len(layer.weight))) if layer.bias is None else layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return a stand-in of the layer's result, of its shape."""
        side = self.offset_mask(x)
        positions = torch.cat([side[:, :18], side[:, 18:].sigmoid()], 1)
        batch, channels, height, width = x.shape
        result, _ = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{NPU_NODE}",
            (x, self.weight, positions, self.bias),
            {"strides": [1] * 4, "paddings": [1] * 4, "dilations": [1] * 4, "groups": 1, "deformable_groups": 1,
             "modulated": 1},
            dtypes=(x.dtype, x.dtype),
            shapes=((batch, len(self.weight), height, width), (batch, channels, 3 * height, 3 * width)),
            version=1,
        )  # fmt: skip
        return result


def atc_model(program: torch.export.ExportedProgram, about: About, dialect: Dialect) -> Any:
    """Return the ONNX model in the dialect. Raises WeightsError when that or ATC has no form for the network."""
    import onnx

    model = onnx_graph.onnx_model(program, about, opset=OPSETS["npu"]).model_proto
    del model.graph.value_info[:]
    for node in model.graph.node:  # torch's notes on where it came from, in fields that older readers lack
        del node.metadata_props[:]
        node.ClearField("doc_string")
    if dialect == "ai.onnx":
        _to_one_domain(model)
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    check_operators(model)
    return model


def check_operators(model: Any) -> None:
    """Raise WeightsError, naming them, when the model has operators that ATC does not know."""
    unknown = operators(model) - known_operators()
    if unknown:
        raise WeightsError(
            "ATC does not know operators of this network", operators=", ".join(sorted(unknown)),
            hint="--dcn and --raw change which operators the graph has",
        )  # fmt: skip


def operators(model: Any) -> set[str]:
    """Return the operators of a model as ATC looks them up: `domain::version::type`."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return {f"{node.domain or 'ai.onnx'}::{versions[node.domain]}::{node.op_type}" for node in model.graph.node}


@functools.cache
def known_operators() -> frozenset[str]:
    """Return what ATC's parser registers, in the same form."""
    text = resources.files("ctnet.export").joinpath("atc_operators.txt").read_text(encoding="utf-8")
    known = set()
    for line in text.splitlines():
        if not line.startswith("#"):
            domain, name, ranges = line.split()
            for part in ranges.split(","):
                first, _, last = part.partition("-")
                known |= {f"{domain}::{version}::{name}" for version in range(int(first), int(last or first) + 1)}
    return frozenset(known)


def _to_one_domain(model: Any) -> None:
    """Make it opset 11, with the old node.

    ONNX's checker tests that the others are nodes of that opset. One with another meaning there would fail the
    proof, for which ONNX's converter raises the opset again.
    """
    import onnx

    opset = OPSETS["ai.onnx"]
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(DOMAIN, 1)]
    _set_imports(model, imports)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WeightsError(
            f"opset {opset} has no form for this graph", got=str(error)[:200], hint="--dialect npu is opset 18"
        ) from None
    _set_imports(model, imports[:1])
    for node in _vendor_nodes(model):
        given = _attributes(node)
        pads = given["paddings"]  # top, bottom, left, right
        del node.attribute[:], node.output[1:]
        node.domain, node.op_type = "", OLD_NODE
        node.attribute.extend(
            onnx.helper.make_attribute(name, value)
            for name, value in {
                "strides": given["strides"][2:], "pads": [pads[0], pads[2]], "dilations": given["dilations"][2:],
                "groups": given["groups"], "deformable_groups": given["deformable_groups"],
                "modulated": given["modulated"],
            }.items()
        )  # fmt: skip


def standard_model(model: Any) -> Any:
    """Return a copy with ONNX's own `DeformConv` in the vendor's place, raised to its opset by ONNX's converter."""
    import onnx
    from onnx import version_converter

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in _vendor_nodes(copy):
        node.domain = DOMAIN  # the converter looks at ONNX's own operators only
    imports = [entry for entry in copy.opset_import if entry.domain == ""]
    _set_imports(copy, [*imports, onnx.helper.make_opsetid(DOMAIN, 1)])
    raised = version_converter.convert_version(copy, onnx_graph.OPSET)
    nodes: list[Any] = []
    for node in raised.graph.node:
        nodes += _standard_nodes(node, raised.graph) if node.domain == DOMAIN else [node]
    graph = onnx.GraphProto()
    graph.CopyFrom(raised.graph)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    result = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", onnx_graph.OPSET)],
        ir_version=onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", onnx_graph.OPSET)]),
    )
    result.metadata_props.extend(model.metadata_props)
    return result


def _standard_nodes(node: Any, graph: Any) -> Iterator[Any]:
    """Yield DeformConv, and before it the positions in its order: (dy, dx) for each tap, the masks apart."""
    import numpy as np
    from onnx import helper, numpy_helper

    x, weight, positions, bias = node.input
    given = _attributes(node)
    kernel = list(next(entry for entry in graph.initializer if entry.name == weight).dims)[2:]
    taps = given["deformable_groups"] * kernel[0] * kernel[1]
    orders = {
        "offset": [channel for tap in range(taps) for channel in (taps + tap, tap)],
        "mask": list(range(2 * taps, 3 * taps)),
    }
    for part, order in orders.items():
        name = f"{node.name}_{part}"
        graph.initializer.append(numpy_helper.from_array(np.array(order, np.int64), f"{name}_order"))
        yield helper.make_node("Gather", [positions, f"{name}_order"], [name], name, axis=1)
    if node.op_type == OLD_NODE:
        (stride, pads, dilation) = (given[name] for name in ("strides", "pads", "dilations"))
        top, bottom, left, right = pads[0], pads[0], pads[-1], pads[-1]
    else:
        stride, dilation = given["strides"][2:], given["dilations"][2:]
        top, bottom, left, right = given["paddings"]
    yield helper.make_node(
        "DeformConv", [x, weight, f"{node.name}_offset", bias, f"{node.name}_mask"], node.output[:1], node.name,
        kernel_shape=kernel, strides=stride, pads=[top, left, bottom, right], dilations=dilation,
        group=given["groups"], offset_group=given["deformable_groups"],
    )  # fmt: skip


def _vendor_nodes(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in (NPU_NODE, OLD_NODE)]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _set_imports(model: Any, imports: list[Any]) -> None:
    del model.opset_import[:]
    model.opset_import.extend(imports)
