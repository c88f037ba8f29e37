"""Detectors from files: weights of ctnet and of other projects, and exported graphs."""

from __future__ import annotations

from pathlib import Path

import torch

from ctnet.detect.detector import Detector, prepare_detector
from ctnet.devices import open_device
from ctnet.errors import ConfigError, WeightsError
from ctnet.export.formats import ExportFormat, format_of
from ctnet.export.runtime import RuntimeNetwork
from ctnet.export.trust import require_trusted
from ctnet.families import family_of
from ctnet.precision import PrecisionName
from ctnet.weights.opening import load_network, open_weights


def load_detector(
    file: str | Path,
    device: str | torch.device = "auto",
    precision: PrecisionName = "auto",
    *,
    compile: bool = False,
    config: str | None = None,
    allow_partial: bool = False,
    trust: bool = False,
    verify: bool = True,
) -> Detector:
    """Return the detector in a file of weights or an exported file, ready on a device (`auto`, `cpu`, `cuda:1`, ...).

    The file may be ctnet's, the original CenterNet's, mmdet's or MindSpore's; `config` names a recipe whose images
    and test settings replace those that come with it. `precision` auto takes what the device runs fast; `compile`
    makes the first batch of each size slow, the others faster. With `allow_partial` what the file lacks is random.
    Without `verify` the checksum of ctnet's files is not compared. The suffix identifies exported files; `trust`
    loads exported programs that ctnet did not write here.
    Raises WeightsError when the file is unusable, DeviceUnavailable or ConfigError for the device, MissingExtra without
    the runtime, and ConfigError for options that an exported file has no use for.
    """
    file, device = Path(file), str(device)
    if format := format_of(file):
        useless = {"--compile": compile, "--config": config, "--allow-partial": allow_partial}
        given = [flag for flag, value in useless.items() if value]
        if given or device not in ("auto", "cpu"):
            raise ConfigError(
                f"an exported file has a fixed precision and runs on {format.runs_on}",
                got=" ".join(given) or f"--device {device}",
                hint="export the weights again with other settings",
            )
        return open_exported(file, format, precision, trust=trust)
    weights = open_weights(file, config, verify=verify)
    opened = open_device(device)
    network, notes = load_network(weights, file, allow_partial=allow_partial)
    family = family_of(weights.recipe, weights.keypoints)
    detector = prepare_detector(network, family, weights.categories, opened, precision, compile=compile)
    detector.notes = tuple(notes)
    return detector


def open_exported(
    file: Path, format: ExportFormat, precision: PrecisionName = "auto", *, trust: bool = False
) -> Detector:
    """Return the detector in an exported file, run by the format's runtime.

    Raises WeightsError for a program that ctnet did not write here, unless `trust` is set.
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
    return Detector(
        network, about.recipe, about.categories, open_device("cpu"), computes, f"on {format.runs_on}",
        keypoints=about.keypoints,
    )  # fmt: skip
