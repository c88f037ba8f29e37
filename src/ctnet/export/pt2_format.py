"""torch's own exported programs; a deformable network needs ctnet's operators where it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ctnet.devices import open_device
from ctnet.errors import WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.options import ExportOptions


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the program and return the file."""
    torch.export.save(program, path, extra_files={KEY: about.to_json()})
    return [path]


class ExportedProgram:
    """A program of `torch.export`, run by torch on the processor."""

    def __init__(self, path: Path) -> None:
        open_device("cpu")  # its kernels stand behind the program's operators
        extra = {KEY: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # torch raises whatever a damaged file leads to
            raise WeightsError("torch cannot load the program", file=path, got=str(error)[:300]) from None
        self.about = read_about(extra[KEY], path)
        self.module = program.module()

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        with torch.inference_mode():
            return dict(zip(self.about.output_names, self.module(images.contiguous()), strict=True))


def load(path: Path, precision: str | None) -> ExportedProgram:
    """Return the file as a program of torch."""
    return ExportedProgram(path)
