"""OpenVINO's IR with convolutions in 8 bits, by NNCF."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ctnet.export.about import KEY, About

CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "DeformableConvolution")


def quantize(plain: Path, path: Path, about: About, inputs: Iterable[Tensor]) -> list[Path]:
    """Write the IR of `plain` with the convolutions in int8, and return both files.

    The layers after the heads' maps stay float32, as eight bits cannot resolve pixels; so does the depthwise
    up-sampling, where they cost more accuracy than they save time, and the deformable layers, which have no 8-bit form.
    """
    import openvino

    os.environ["NNCF_CI"] = "1"  # turn off telemetry
    with contextlib.redirect_stdout(sys.stderr):  # progress
        import nncf

        logger = logging.getLogger("nncf")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            batches = [images.numpy() for images in inputs]
            model = openvino.Core().read_model(plain)
            quantized = nncf.quantize(
                model,
                nncf.Dataset(batches),
                subset_size=len(batches),
                ignored_scope=nncf.IgnoredScope(names=kept_in_float32(model)),
            )
        finally:
            logger.setLevel(level)
    quantized.set_rt_info(about.to_json(), KEY)
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def kept_in_float32(model: Any) -> list[str]:
    """Return the names of the nodes that stay float32: up-sampling, and all that comes after the last convolutions."""
    nodes = model.get_ordered_ops()
    before: set[str] = set()
    open_nodes = [node for node in nodes if node.get_type_name() in CONVOLUTIONS]
    while open_nodes:
        node = open_nodes.pop()
        if node.get_friendly_name() not in before:
            before.add(node.get_friendly_name())
            open_nodes += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return [
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() == "ConvolutionBackpropData"
        or (node.get_friendly_name() not in before and node.get_type_name() not in ("Constant", "Result"))
    ]
