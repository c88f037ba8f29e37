"""ExecuTorch programs for phones and boards, their convolutions by XNNPACK, deformable ones by `grid_sample`."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.errors import ToolFailed, WeightsError
from ctnet.export.about import KEY, About, read_about
from ctnet.export.options import ExportOptions


def write(program: torch.export.ExportedProgram, about: About, path: Path, options: ExportOptions) -> list[Path]:
    """Write the program and return the file; its metadata is a method that returns text."""
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = program.run_decompositions(
            {
                torch.ops.ctnet.depthwise_upsample.default: _upsample,
                torch.ops.aten._native_batch_norm_legit_no_training.default: _norm,
            }
        )
        methods = {KEY: about.to_json()}
        try:
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=methods)
            lowered = edge.to_executorch()
        except Exception as error:  # its passes raise exceptions of many classes
            raise ToolFailed("ExecuTorch cannot lower this network", output=str(error)[:300].splitlines()) from None
        with path.open("wb") as file:
            lowered.write_to_file(file)
    return [path]


def _upsample(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return F.conv_transpose2d(input, weight, stride=stride, padding=padding, groups=weight.shape[0])


def _norm(
    input: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, _: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a norm as one product and one sum: fused into the grouped transposed convolution before it, it fails."""
    scale = weight / torch.sqrt(variance + eps)
    output = input * scale[:, None, None] + (bias - mean * scale)[:, None, None]
    return output, input.new_empty(0), input.new_empty(0)  # the last two are for training


class ExecuTorchRuntime:
    """A program in ExecuTorch's own runtime on the CPU."""

    def __init__(self, path: Path) -> None:
        with _quiet():
            from executorch.runtime import Runtime

            try:
                program = Runtime.get().load_program(path)
                described = KEY in program.method_names
                text = program.load_method(KEY).execute([])[0] if described else None
                self.forward = program.load_method("forward")
            except (RuntimeError, ValueError) as error:
                raise WeightsError("ExecuTorch cannot load the file", file=path, got=str(error)[:300]) from None
        self.program = program  # keep it alive: its methods live in it
        self.about = read_about(text, path)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the outputs of one batch."""
        outputs = self.forward.execute([images.contiguous()])
        # the runtime writes into the same memory at the next call
        return {name: values.clone() for name, values in zip(self.about.output_names, outputs, strict=True)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send messages of these packages to stderr and show errors only."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def load(path: Path, precision: str | None) -> ExecuTorchRuntime:
    """Return the file in ExecuTorch."""
    return ExecuTorchRuntime(path)
