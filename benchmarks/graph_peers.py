"""A whole network in other runtimes, written node by node from its folded graph: onnxruntime and OpenVINO."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from peers import Call, onnxruntime_options, openvino_call
from torch import fx, nn

from ctnet.nn import DeformConv2d, DepthwiseUpsample


class Writer(Protocol):
    """Adds one operation to a runtime's graph and returns its result."""

    def convolution(self, x: Any, layer: nn.Conv2d) -> Any: ...
    def transposed(self, x: Any, layer: nn.ConvTranspose2d) -> Any: ...
    def deformable(self, x: Any, layer: DeformConv2d) -> Any: ...
    def max_pool(self, x: Any, layer: nn.MaxPool2d) -> Any: ...
    def upsample(self, x: Any, layer: DepthwiseUpsample) -> Any: ...
    def concat(self, maps: list[Any]) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def add(self, x: Any, y: Any) -> Any: ...


def write(graph: fx.GraphModule, image: Any, writer: Writer) -> dict[str, Any]:
    """Return the runtime's output values by head, after adding every node of the graph."""
    modules = dict(graph.named_modules())
    by_layer: dict[type, Callable[..., Any]] = {
        nn.Conv2d: writer.convolution,
        nn.ConvTranspose2d: writer.transposed,
        DeformConv2d: writer.deformable,
        DepthwiseUpsample: writer.upsample,
        nn.Identity: lambda x, _: x,
        nn.MaxPool2d: writer.max_pool,
        nn.ReLU: lambda x, _: writer.relu(x),
    }
    values: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        arguments = [values.get(a, a) if isinstance(a, fx.Node) else a for a in node.args]
        if node.op == "placeholder":
            values[node] = image
        elif node.op == "call_module":
            layer = modules[str(node.target)]
            values[node] = next(by_layer[kind] for kind in type(layer).__mro__ if kind in by_layer)(arguments[0], layer)
        elif node.op == "output":
            return {name: values[value] for name, value in node.args[0][-1].items()}
        elif node.target is F.relu:
            values[node] = writer.relu(arguments[0])
        elif node.target is torch.cat:
            values[node] = writer.concat([values[part] for part in node.args[0]])
        elif node.target is operator.add:
            values[node] = writer.add(*arguments)
        else:
            raise SystemExit(f"no other runtime is taught {node.target}")
    raise SystemExit("the graph has no output")


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def _pooling(layer: nn.MaxPool2d) -> tuple[list[int], list[int], list[int]]:
    """Return kernel, stride and padding, each for rows and columns."""
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    return tuple([size, size] if isinstance(size, int) else list(size) for size in sizes)


class OnnxWriter:
    """Writes ONNX nodes, opset 19."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operation: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> Any:
        import onnx

        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(onnx.helper.make_node(operation, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: np.ndarray) -> str:
        import onnx

        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def parameters(self, layer: Any) -> list[str]:
        bias = [] if layer.bias is None else [self.constant(_array(layer.bias))]
        return [self.constant(_array(layer.weight)), *bias]

    def convolution(self, x: str, layer: nn.Conv2d) -> str:
        """Add a convolution."""
        return self.node("Conv", [x, *self.parameters(layer)], pads=[*layer.padding] * 2, strides=[*layer.stride])

    def transposed(self, x: str, layer: nn.ConvTranspose2d) -> str:
        """Add a transposed convolution."""
        pads = [*layer.padding] * 2
        return self.node("ConvTranspose", [x, *self.parameters(layer)], pads=pads, strides=[*layer.stride])

    def deformable(self, x: str, layer: DeformConv2d) -> str:
        """Add the side convolution, its split and the deformable convolution."""
        side = self.convolution(x, layer.offset_mask)
        sizes = self.constant(np.array([18, 9], np.int64))
        offset, mask = self.node("Split", [side, sizes], 2, axis=1)
        weight, bias = self.parameters(layer)
        inputs = [x, weight, offset, bias, self.node("Sigmoid", [mask])]
        return self.node("DeformConv", inputs, pads=[1, 1, 1, 1], kernel_shape=[3, 3])

    def upsample(self, x: str, layer: DepthwiseUpsample) -> str:
        """Add a depthwise transposed convolution."""
        weight, f = self.constant(_array(layer.weight)), layer.factor
        groups = layer.weight.shape[0]
        return self.node("ConvTranspose", [x, weight], pads=[f // 2] * 4, strides=[f, f], group=groups)

    def concat(self, maps: list[str]) -> str:
        """Add a concatenation of channels."""
        return self.node("Concat", maps, axis=1)

    def max_pool(self, x: str, layer: nn.MaxPool2d) -> str:
        """Add a maximum."""
        kernel, stride, pad = _pooling(layer)
        return self.node("MaxPool", [x], kernel_shape=kernel, strides=stride, pads=pad * 2)

    def relu(self, x: str) -> str:
        """Add a ReLU."""
        return self.node("Relu", [x])

    def add(self, x: str, y: str) -> str:
        """Add a sum."""
        return self.node("Add", [x, y])


def onnxruntime_network(graph: fx.GraphModule, x: torch.Tensor, threads: int) -> Call | None:
    """Return a float32 call of the network in onnxruntime, or None without it."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    writer, kind = OnnxWriter(), onnx.TensorProto.FLOAT
    outputs = write(graph, "x", writer)
    with torch.inference_mode():
        shapes = {name: list(value.shape) for name, value in graph(x)[-1].items()}
    model = onnx.helper.make_graph(
        writer.nodes,
        "network",
        [onnx.helper.make_tensor_value_info("x", kind, list(x.shape))],
        [onnx.helper.make_tensor_value_info(value, kind, shapes[name]) for name, value in outputs.items()],
        writer.constants,
    )
    whole = onnx.helper.make_model(model, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), onnxruntime_options(threads))
    feeds = {"x": x.contiguous().numpy()}
    return lambda: session.run(None, feeds)[0]


class OpenVinoWriter:
    """Writes OpenVINO nodes, opset 8."""

    def __init__(self) -> None:
        from openvino import opset8

        self.ops = opset8

    def with_bias(self, x: Any, layer: Any) -> Any:
        if layer.bias is None:
            return x
        return self.ops.add(x, self.ops.constant(_array(layer.bias).reshape(1, -1, 1, 1)))

    def convolution(self, x: Any, layer: nn.Conv2d) -> Any:
        """Add a convolution."""
        pads = [*layer.padding]
        weight = self.ops.constant(_array(layer.weight))
        return self.with_bias(self.ops.convolution(x, weight, [*layer.stride], pads, pads, [1, 1]), layer)

    def transposed(self, x: Any, layer: nn.ConvTranspose2d) -> Any:
        """Add a transposed convolution."""
        pads, weight = [*layer.padding], self.ops.constant(_array(layer.weight))
        result = self.ops.convolution_backprop_data(
            x, weight, [*layer.stride], pads_begin=pads, pads_end=pads, dilations=[1, 1]
        )
        return self.with_bias(result, layer)

    def deformable(self, x: Any, layer: DeformConv2d) -> Any:
        """Add the side convolution, its split and the deformable convolution."""
        ops = self.ops
        side = self.convolution(x, layer.offset_mask)
        parts = ops.variadic_split(side, ops.constant(np.int64(1)), ops.constant(np.array([18, 9], np.int64)))
        result = ops.deformable_convolution(
            x, parts.output(0), ops.constant(_array(layer.weight)), [1, 1], [1, 1], [1, 1], [1, 1],
            mask=ops.sigmoid(parts.output(1)), bilinear_interpolation_pad=True,
        )  # fmt: skip
        return self.with_bias(result, layer)

    def upsample(self, x: Any, layer: DepthwiseUpsample) -> Any:
        """Add a depthwise transposed convolution."""
        f, weight = layer.factor, _array(layer.weight)
        return self.ops.group_convolution_backprop_data(
            x, self.ops.constant(weight[:, None]), [f, f], pads_begin=[f // 2] * 2, pads_end=[f // 2] * 2,
            dilations=[1, 1],
        )  # fmt: skip

    def concat(self, maps: list[Any]) -> Any:
        """Add a concatenation of channels."""
        return self.ops.concat(maps, 1)

    def max_pool(self, x: Any, layer: nn.MaxPool2d) -> Any:
        """Add a maximum."""
        kernel, stride, pad = _pooling(layer)
        return self.ops.max_pool(x, stride, [1, 1], pad, pad, kernel).output(0)

    def relu(self, x: Any) -> Any:
        """Add a ReLU."""
        return self.ops.relu(x)

    def add(self, x: Any, y: Any) -> Any:
        """Add a sum."""
        return self.ops.add(x, y)


def openvino_network(graph: fx.GraphModule, x: torch.Tensor, threads: int, precision: str) -> Call | None:
    """Return a call of the network in OpenVINO, or None without it; `precision` is f32 or bf16."""
    try:
        import openvino as ov
    except ImportError:
        return None
    writer = OpenVinoWriter()
    image = writer.ops.parameter(list(x.shape), np.float32)
    outputs = write(graph, image, writer)
    model = ov.Model(list(outputs.values()), [image], "network")
    return openvino_call(model, [x.contiguous().numpy()], threads, precision)
