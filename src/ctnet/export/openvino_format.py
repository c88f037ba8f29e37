"""OpenVINO's IR, which plain OpenVINO loads: `DeformConv` becomes its own `DeformableConvolution`."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctnet.errors import CtnetError, WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.onnx_check import checked_onnx
from ctnet.export.onnx_graph import onnx_model
from ctnet.export.options import ExportOptions


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the graph and, beside it, the weights, and return both files."""
    import openvino

    core = _core()
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "graph.onnx"
        onnx_model(program, about).save(onnx_file, external_data=False)
        model = core.read_model(onnx_file)
        model.set_rt_info(about.to_json(), KEY)
        openvino.save_model(model, path, compress_to_fp16=about.precision == "fp16")
    return [path, path.with_suffix(".bin")]


def _core() -> Any:
    """Return an OpenVINO that reads our ONNX files too."""
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deform_conv))
    return core


def _deform_conv(node: Any) -> list[Any]:
    """Return OpenVINO's nodes for an ONNX DeformConv."""
    from openvino import opset8

    x, weight, offset, bias, mask = (node.get_input(i) for i in range(5))
    pads = node.get_attribute("pads")
    result = opset8.deformable_convolution(
        x, offset, weight, node.get_attribute("strides"), pads[:2], pads[2:], node.get_attribute("dilations"), mask,
        "EXPLICIT", node.get_attribute("group"), node.get_attribute("offset_group"), bilinear_interpolation_pad=True,
    )  # fmt: skip
    shape = opset8.constant(np.array([1, -1, 1, 1], np.int64))
    return [opset8.add(result, opset8.reshape(bias, shape, False)).output(0)]


class OpenVinoRuntime:
    """A compiled IR or ONNX file on the CPU, in float32 unless bf16 is asked for."""

    def __init__(self, path: Path, precision: str | None) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16"}.get(precision or "", "f32"),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        try:
            core = _core()
            model = core.read_model(path if path.suffix == ".xml" else io.BytesIO(checked_onnx(path)))
            key = KEY if path.suffix == ".xml" else ["framework", KEY]  # where metadata of ONNX files is put
            text = model.get_rt_info(key).astype(str) if model.has_rt_info(key) else None
            self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        except (CtnetError, MemoryError):
            raise
        except Exception as error:  # OpenVINO's C++ has many classes
            raise WeightsError("OpenVINO cannot load the file", file=path, got=str(error)[-300:]) from None
        self.about = read_about(text, path)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        results = self.request.infer([np.ascontiguousarray(images.numpy())])
        arrays = [np.array(results[i]) for i in range(len(self.about.output_names))]
        return {name: torch.from_numpy(a) for name, a in zip(self.about.output_names, arrays, strict=True)}


def load(path: Path, precision: str | None) -> OpenVinoRuntime:
    """Return the file in OpenVINO."""
    return OpenVinoRuntime(path, precision)
