"""The formats that ctnet exports, as data. A new one is a file beside this one and an entry here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ctnet.errors import ConfigError, MissingExtra
from ctnet.export import onnx_format, openvino_format, pt2_format
from ctnet.export.about import About


class Runtime(Protocol):
    """A loaded file: float32 pictures (N,3,H,W) on the cpu in, outputs by name out."""

    about: About

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch that has the shape the graph takes."""


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file: what it is called, what it needs, how it is written and run.

    `write(program, about, path)` writes `path` and what belongs beside it and returns all files; `open(path,
    precision)` returns a runtime, `precision` being one of `precisions` or None for the file's own.
    """

    name: str
    title: str
    suffix: str
    modules: tuple[str, ...]
    extra: str | None
    write: Callable[[torch.export.ExportedProgram, About, Path], list[Path]]
    open: Callable[[Path, str | None], Runtime]
    precisions: tuple[str, ...] = ("fp32",)

    def require(self) -> None:
        """Raise MissingExtra, with the command that installs it, when a package is absent."""
        missing = [module for module in self.modules if importlib.util.find_spec(module) is None]
        if missing:
            raise MissingExtra(
                f"{self.title} needs {', '.join(missing)}", hint=f'pip install "ctnet[{self.extra}]" installs it'
            )


FORMATS = (
    ExportFormat(
        "onnx", "ONNX", ".onnx", ("onnx", "onnxscript", "onnxruntime"), "onnx", onnx_format.write, onnx_format.load,
    ),
    ExportFormat(
        "openvino", "OpenVINO", ".xml", ("openvino", "onnx", "onnxscript"), "openvino",
        openvino_format.write, openvino_format.load, ("fp32", "bf16"),
    ),
    ExportFormat("pt2", "torch.export", ".pt2", (), None, pt2_format.write, pt2_format.load),
)  # fmt: skip


def format_named(name: str) -> ExportFormat:
    """Return the format. Raises ConfigError for an unknown name."""
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise ConfigError("unknown export format", got=name, expected=", ".join(f.name for f in FORMATS))


def format_of(path: Path) -> ExportFormat | None:
    """Return the format that files of this suffix have, None for weights of other kinds."""
    return next((candidate for candidate in FORMATS if path.suffix == candidate.suffix), None)
