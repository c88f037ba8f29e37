"""ONNX by torch's exporter, with the standard `DeformConv` (opset 19), run by onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctnet.distribution import install_command
from ctnet.errors import CtnetError, MissingExtra, WeightsError
from ctnet.export.about import INPUT, KEY, About, read_about
from ctnet.export.centerface_onnx import CenterFaceRuntime, any_size, is_centerface
from ctnet.export.onnx_check import checked_onnx
from ctnet.export.onnx_graph import OPSET, onnx_model
from ctnet.export.openvino_format import OpenVinoRuntime
from ctnet.export.options import ExportOptions

OPSET_BF16 = 22  # the first whose convolutions take bf16


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the graph, its weights inside, and return the file."""
    model = onnx_model(program, about, opset=OPSET_BF16 if about.precision == "bf16" else OPSET)
    model.save(path, external_data=False)
    return [path]


def _session(path: Path, model: bytes | None = None) -> Any:
    """Return a session of the file, or of the `model` that stands for it. Raises WeightsError when it cannot be."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch needs the cores in between
    options.log_severity_level = 4  # failures are raised; the log would quote names of the file on the terminal
    try:
        content = model or checked_onnx(path)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (CtnetError, MemoryError):
        raise
    except Exception as error:  # onnxruntime has a class of its own for every failure
        text = str(error)
        hint = None
        if "DeformConv" in text:
            hint = "this onnxruntime lacks DeformConv: update it, or export with --dcn decompose"
        if "DeformableConv2" in text:
            hint = "this graph is for Ascend's compiler: take the OM, or ctnet export onnx"
        raise WeightsError("onnxruntime cannot load the file", file=path, got=text[:300], hint=hint) from None


class OnnxRuntime:
    """A session of onnxruntime on the CPU, of the file or of the `model` that stands for it."""

    def __init__(self, path: Path, model: bytes | None = None) -> None:
        self.session = _session(path, model)
        self.about = read_about(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        arrays = self.session.run(None, {INPUT: np.ascontiguousarray(images.numpy())})
        return {name: torch.from_numpy(a) for name, a in zip(self.about.output_names, arrays, strict=True)}


def load(path: Path, precision: str | None) -> OnnxRuntime | OpenVinoRuntime | CenterFaceRuntime:
    """Return the file in onnxruntime, which computes in the precision the file was written in.

    A bf16 file, which onnxruntime cannot run on a CPU, is run by OpenVINO. Of files that ctnet did not write,
    CenterFace's is run as its reference program does.
    """
    if _described_precision(path) is None and is_centerface(path):
        return CenterFaceRuntime(_session(path, any_size(checked_onnx(path))))
    if _described_precision(path) != "bf16":
        return OnnxRuntime(path)
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtra(
            "onnxruntime has no bf16 convolutions for processors; OpenVINO runs this file",
            hint=f"{install_command('openvino')} installs it",
        )
    return OpenVinoRuntime(path, "bf16")


def _described_precision(path: Path) -> str | None:
    """Return the precision in the metadata of the file, None without one."""
    import onnx

    try:
        entries = onnx.load(path, load_external_data=False).metadata_props
    except Exception:  # onnxruntime reports a damaged file
        return None
    text = next((entry.value for entry in entries if entry.key == KEY), None)
    return None if text is None else read_about(text, path).precision
