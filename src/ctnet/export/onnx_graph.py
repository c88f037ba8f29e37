"""A network as an ONNX graph by torch's exporter; ONNX files, OpenVINO's and Ascend's begin with it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from ctnet.export.about import INPUT, KEY, About

OPSET = 19  # the first with DeformConv


def onnx_model(program: torch.export.ExportedProgram, about: About, *, opset: int = OPSET) -> Any:
    """Return torch's ONNX program with names and metadata, checked against ONNX's own rules."""
    import onnx

    translations: dict[Any, Any] = {
        torch.ops.ctnet.deform_conv2d.default: _deform_conv,
        torch.ops.ctnet.depthwise_upsample.default: _upsample,
    }
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # no warnings about packages that are not needed here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(about.output_names),
                custom_translation_table=translations,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert model is not None
    _name_free_axes(model.model.graph)
    model.model.metadata_props[KEY] = about.to_json()
    model.model.producer_name = "ctnet"
    onnx.checker.check_model(model.model_proto, full_check=True)
    return model


def _name_free_axes(graph: Any) -> None:
    """Give the free axes of the input, which torch numbers, names that a reader of the file understands."""
    shape = graph.inputs[0].shape
    names = {
        str(axis.value): name
        for axis, name in zip(shape, ("batch", "channels", "height", "width"), strict=True)
        if not isinstance(axis, int)
    }
    values = [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        for index, axis in enumerate(value.shape or ()):
            if not isinstance(axis, int) and str(axis.value) in names:
                value.shape[index] = names[str(axis.value)]


def _deform_conv(
    input: Any, offset: Any, weight: Any, bias: Any, mask: Any, stride: Any, padding: Any, dilation: Any
) -> Any:
    from onnxscript import opset19

    kernel = list(weight.shape[2:])
    return opset19.DeformConv(
        input, weight, offset, bias, mask,
        kernel_shape=kernel, strides=list(stride), pads=[*padding, *padding], dilations=list(dilation),
        group=input.shape[1] // weight.shape[1], offset_group=offset.shape[1] // (2 * kernel[0] * kernel[1]),
    )  # fmt: skip


def _upsample(input: Any, weight: Any, stride: int, padding: int) -> Any:
    from onnxscript import opset19

    return opset19.ConvTranspose(
        input, weight, group=weight.shape[0], strides=[stride, stride], pads=[padding] * 4
    )  # fmt: skip
