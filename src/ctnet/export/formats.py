"""The formats that ctnet exports, as data. A new one is a file beside this one and an entry here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ctnet.distribution import install_command
from ctnet.errors import ConfigError, MissingExtra, nearest
from ctnet.export import (
    executorch_format,
    om_format,
    onnx_format,
    onnx_int8,
    openvino_format,
    openvino_int8,
    pt2_format,
)
from ctnet.export.about import About, Precision
from ctnet.export.graph import DeformForm
from ctnet.export.options import ExportOptions


class Runtime(Protocol):
    """A loaded file: float32 images (N,3,H,W) on the CPU in, outputs by name out."""

    about: About

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch that has the shape the graph takes."""


class Needs(NamedTuple):
    """Packages, and the extra of ctnet that brings them."""

    modules: tuple[str, ...]
    extra: str


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file: what it is called, what it needs, how it is written and run.

    `write(program, about, path, options)` writes `path` and what belongs beside it and returns all files; `open(path,
    precision)` returns a runtime, `precision` being one of `precisions` or None for the file's own.

    A format with `compile` is made in two steps. What `write` returns first is a graph in another format, of any batch
    size, which `prove` opens to be compared with torch; `compile(path, options)` then makes `path` of it and returns
    the new files and notes. Its images have one size, its batches some sizes.
    """

    name: str
    title: str
    suffix: str
    modules: tuple[str, ...]
    extra: str | None
    write: Callable[[torch.export.ExportedProgram, About, Path, ExportOptions], list[Path]]
    open: Callable[[Path, str | None], Runtime]
    precisions: tuple[str, ...] = ("fp32",)
    written_in: tuple[Precision, ...] = ("fp32", "fp16")
    also: Mapping[str, Needs] = field(default_factory=dict)
    """further packages that a precision of `written_in` needs"""
    quantize: Callable[[Path, Path, About, Iterable[Tensor]], list[Path]] | None = None
    """`quantize(plain, path, about, inputs)` makes an int8 file of a float32 one, whose numbers' ranges it learns from
    the inputs, and returns all files"""
    runs_on: str = "the CPU"
    output: Literal["decoded", "raw"] = "decoded"
    """default output of files"""
    dcn: DeformForm = "native"
    """what `--dcn native` means"""
    runtime_modules: tuple[str, ...] = ()
    runtime_hint: str = ""
    """to run a file, where that takes other packages than to write it"""
    prove: Callable[[Path], Runtime] | None = None
    compile: Callable[[Path, ExportOptions], tuple[list[Path], list[str]]] | None = None
    has_boxes: bool = False
    """it has NMS and pooling of boxes"""
    is_program: bool = False
    """its runtime executes code in a file, which must therefore be written by ctnet or trusted by the user"""

    def new_file(self, weights: Path, out: Path | None, precision: Precision | None = None) -> Path:
        """Return where the file goes: `out`, else one named as the weights and the precision that was asked for.

        Raises ConfigError for a folder and for another suffix, which would hide its format.
        """
        kind = f"-{precision}" if precision not in (None, "fp32") else ""
        name = f"{weights.stem}{kind}{self.suffix}"
        if out is None:
            return Path(name)
        if out.is_dir():
            raise ConfigError("--out names a folder, not a file", got=out, hint=f"such as {out / name}")
        if out.suffix != self.suffix:
            raise ConfigError(f"a file of {self.title} is named NAME{self.suffix}", got=out)
        return out

    def require(self, precision: Precision | None = None) -> None:
        """Raise MissingExtra, with the command that installs it, when a package that writes these files is absent.

        Raises ConfigError for a precision that they are not written in.
        """
        _require(self.title, self.modules, f"{install_command(self.extra)} installs it")
        if precision and precision not in self.written_in:
            choices = ", ".join(self.written_in)
            raise ConfigError(f"{self.title} is not written in this precision", got=precision, expected=choices)
        if precision is not None and precision in self.also:
            more = self.also[precision]
            _require(f"{self.title} in {precision}", more.modules, f"{install_command(more.extra)} installs it")

    def require_runtime(self) -> None:
        """Raise MissingExtra, saying where it is found, when a package that runs these files is absent."""
        if self.runtime_modules:
            _require(f"running {self.title}", self.runtime_modules, self.runtime_hint)
        else:
            self.require()


def _require(what: str, modules: tuple[str, ...], hint: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingExtra(f"{what} needs {', '.join(missing)}", hint=hint)


FORMATS = (
    ExportFormat(
        "onnx", "ONNX", ".onnx", ("onnx", "onnxscript", "onnxruntime"), "onnx", onnx_format.write, onnx_format.load,
        written_in=("fp32", "fp16", "bf16", "int8"), also={"bf16": Needs(("openvino",), "openvino")},
        quantize=onnx_int8.quantize, has_boxes=True,
    ),
    ExportFormat(
        "openvino", "OpenVINO", ".xml", ("openvino", "onnx", "onnxscript"), "openvino",
        openvino_format.write, openvino_format.load, ("fp32", "bf16"), ("fp32", "fp16", "int8"),
        also={"int8": Needs(("nncf",), "int8")}, quantize=openvino_int8.quantize, has_boxes=True,
    ),
    ExportFormat("pt2", "torch.export", ".pt2", (), None, pt2_format.write, pt2_format.load, is_program=True),
    ExportFormat(
        "executorch", "ExecuTorch", ".pte", ("executorch",), "executorch",
        executorch_format.write, executorch_format.load, written_in=("fp32",),
        dcn="decompose",  # its runtime lacks ctnet's operators
        is_program=True,
    ),
    ExportFormat(
        "om", "Ascend OM", ".om", ("onnx", "onnxscript", "onnxruntime"), "onnx", om_format.write, om_format.load, (),
        runtime_modules=("ais_bench", "aclruntime"),
        runtime_hint="both are wheels of Ascend's ais_bench tool (Ascend/tools, ais-bench_workload), not on PyPI",
        runs_on="an Ascend chip", dcn="npu", prove=om_format.prove, compile=om_format.compile_graph, is_program=True,
        # The chip computes in float16, which has no quarter pixels above 512, and the peaks of all classes at once
        # take a TopK over a million values: boxes are computed on the host, as in the port to the 310P.
        output="raw",
    ),
)  # fmt: skip


def format_named(name: str) -> ExportFormat:
    """Return the format. Raises ConfigError for an unknown name."""
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    names = [candidate.name for candidate in FORMATS]
    raise ConfigError("unknown export format", got=name, expected=", ".join(names), nearest=nearest(name, names))


def format_of(path: Path) -> ExportFormat | None:
    """Return the format that files of this suffix have, None for weights of other kinds."""
    return next((candidate for candidate in FORMATS if path.suffix == candidate.suffix), None)
