"""torch's own exported programs; a deformable network needs ctnet's operators where it is run."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ctnet.devices import open_device
from ctnet.errors import WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.options import ExportOptions
from ctnet.export.pt2_check import checked_copy


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the program and return the file."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    # that maps of one size have one size: torch executes it as source code, and the check of the file would refuse it
    program._guards_code = []
    content = io.BytesIO()  # in memory first: torch aborts the process when the disk is full
    torch.export.save(program, content, extra_files={KEY: about.to_json()})
    path.write_bytes(content.getbuffer())
    return [path]


class ExportedProgram:
    """A program of `torch.export`, run by torch on the CPU."""

    def __init__(self, path: Path) -> None:
        try:
            program_file, text = checked_copy(path)
            about = read_about(text, path)
            open_device("cpu")  # its kernels stand behind the program's operators
            with _quiet():
                module = torch.export.load(program_file).module()
        except (WeightsError, MemoryError):
            raise
        except Exception as error:  # a damaged file raises exceptions of any class
            raise WeightsError("torch cannot load the program", file=path, got=str(error)[:300]) from None
        self.about = about
        self.module = module

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        with torch.inference_mode():
            return dict(zip(self.about.output_names, self.module(images.contiguous()), strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that it raises as well."""
    log = logging.getLogger("torch.export")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def load(path: Path, precision: str | None) -> ExportedProgram:
    """Return the file as a program of torch."""
    return ExportedProgram(path)
