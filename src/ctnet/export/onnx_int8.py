"""ONNX with convolutions in 8 bits, each between a DequantizeLinear and a QuantizeLinear, by onnxruntime."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ctnet.export.about import INPUT, KEY, About

QUANTIZED = ("Conv", "Add", "Relu", "MaxPool")


def quantize(plain: Path, path: Path, about: About, inputs: Iterable[Tensor]) -> list[Path]:
    """Write the graph of `plain` with the convolutions in int8, and return the file.

    Only numbers that the next convolution takes are rounded to 8 bits: onnxruntime rounds what a quantised layer
    returns, and neither the last layer of a head nor the offsets of a deformable layer can bear it. Up-sampling and
    deformable layers have no 8-bit form.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(plain)
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends passes that torch's exporter has made
    try:
        quantize_static(
            model,
            path,
            _Batches(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_quantize=quantized_nodes(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logger.setLevel(level)
    result = onnx.load(path)
    for entry in result.metadata_props:
        if entry.key == KEY:
            entry.value = about.to_json()
    onnx.save(result, path)
    return [path]


def quantized_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that hand their output to a convolution, through kinds with an 8-bit form alone."""
    maker = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, Any] = {}
    open_names = [node.input[0] for node in model.graph.node if node.op_type == "Conv"]
    while open_names:
        node = maker.get(open_names.pop())
        if node is not None and node.op_type in QUANTIZED and node.name not in found:
            found[node.name] = node
            open_names += node.input
    return list(found)


class _Batches:
    """Inputs as onnxruntime's calibration asks for them: one at a time, then None."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        self.inputs = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.inputs, None)
        return None if images is None else {INPUT: images.numpy()}
