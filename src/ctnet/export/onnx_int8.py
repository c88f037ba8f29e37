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

    What makes boxes of the heads' maps stays float32, as eight bits do not count pixels; so do the up-sampling and the
    deformable layers, which onnxruntime has in no 8-bit form.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(plain)
    logger = logging.getLogger()
    level, logger.level = logger.level, logging.ERROR  # it recommends passes that torch's exporter has made
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
        logger.level = level
    result = onnx.load(path)
    for entry in result.metadata_props:
        if entry.key == KEY:
            entry.value = about.to_json()
    onnx.save(result, path)
    return [path]


def quantized_nodes(model: Any) -> list[str]:
    """Return the names of the nodes that lead to a convolution or are one, of kinds that have an 8-bit form."""
    maker = {output: node for node in model.graph.node for output in node.output}
    before: dict[str, Any] = {}
    open_nodes = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose", "DeformConv")]
    while open_nodes:
        node = open_nodes.pop()
        if node.name not in before:
            before[node.name] = node
            open_nodes += [maker[name] for name in node.input if name in maker]
    return [name for name, node in before.items() if node.op_type in QUANTIZED]


class _Batches:
    """Inputs as onnxruntime's calibration asks for them: one at a time, then None."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        self.inputs = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.inputs, None)
        return None if images is None else {INPUT: images.numpy()}
