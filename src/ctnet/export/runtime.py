"""Exported files as detectors: the same pictures, decoding and metrics, whatever runs the graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ctnet.devices import PrecisionName, open_device
from ctnet.errors import ConfigError, CtnetError, WeightsError
from ctnet.export.formats import ExportFormat, Runtime, format_of
from ctnet.export.trust import require_trusted
from ctnet.models import detector as detectors
from ctnet.models.detector import Detector


class RuntimeNetwork(nn.Module):
    """A runtime that takes batches of any number, cut and filled up to what its graph takes."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of (N,3,H,W) pictures. Raises ConfigError for a size that the graph does not take."""
        about, (height, width) = self.runtime.about, images.shape[2:]
        if about.size is not None and about.size != (height, width):
            raise ConfigError(
                "the exported graph takes pictures of one size",
                expected="x".join(map(str, about.size)),
                got=f"{height}x{width}",
                hint="leave --image-size, --scales and --keep-res alone, or export with --image-size dynamic",
            )
        try:
            if about.batch is None:
                return dict(self.runtime(images))
            parts = [self._fixed(part, about.batch) for part in torch.split(images, about.batch)]
        except (CtnetError, MemoryError):
            raise
        except Exception as error:  # of a class of the runtime's own: the graph is not what the file says it is
            raise WeightsError("the exported graph fails", got=str(error)[:300] or type(error).__name__) from None
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _fixed(self, images: Tensor, batch: int) -> dict[str, Tensor]:
        missing = batch - len(images)
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return {name: values[: len(images)] for name, values in self.runtime(filled).items()}


def open_detector(
    file: Path,
    device: str = "auto",
    precision: PrecisionName = "auto",
    *,
    compile: bool = False,
    config: str | None = None,
    allow_partial: bool = False,
    trust: bool = False,
    verify: bool = True,
) -> Detector:
    """Return the detector in a file of weights or an exported file, told apart by suffix.

    `trust` loads exported programs that ctnet did not write here. Raises what `load_detector` raises, MissingExtra when
    the runtime is not installed, and ConfigError for options that an exported file has no use for.
    """
    format = format_of(file)
    if format is None:
        return detectors.load_detector(
            file, device, precision, compile=compile, config=config, allow_partial=allow_partial, verify=verify
        )
    useless = {"--compile": compile, "--config": config, "--allow-partial": allow_partial}
    given = [flag for flag, value in useless.items() if value]
    if given or device not in ("auto", "cpu"):
        raise ConfigError(
            f"an exported file is what it is, and runs on {format.runs_on}",
            got=" ".join(given) or f"--device {device}",
            hint="export the weights again with other settings",
        )
    return open_exported(file, format, precision, trust=trust)


def open_exported(
    file: Path, format: ExportFormat, precision: PrecisionName = "auto", *, trust: bool = False
) -> Detector:
    """Return the detector in an exported file, run by the format's runtime.

    Raises WeightsError for a program that ctnet did not write here, unless it is to be trusted.
    """
    format.require_runtime()
    if not file.is_file():
        raise WeightsError("there is no such file", file=file)
    if format.is_program:
        require_trusted(file, format.title, trust=trust)
    if precision != "auto" and precision not in format.precisions:
        choices = ", ".join(format.precisions) or "what the file was made for"
        raise ConfigError(f"{format.title} computes here in {choices}", got=precision)
    runtime = format.open(file, None if precision == "auto" else precision)
    network, about = RuntimeNetwork(runtime), runtime.about
    names = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
    words = [names[about.precision]] if about.precision == "int8" or precision == "auto" else []
    words += [names[precision]] if precision != "auto" else []
    computes = f"{format.title} {' and '.join(words)}"
    return Detector(network, about.recipe, about.categories, open_device("cpu"), computes, f"on {format.runs_on}")
