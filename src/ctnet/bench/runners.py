"""The measured process: open a runtime, warm it up, time it and report its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctnet.bench.memory import Memory, peak_memory, resident_bytes
from ctnet.bench.timing import stage_seconds
from ctnet.config import Recipe
from ctnet.data.image import read_image
from ctnet.detect.detector import Detector
from ctnet.detect.merge import merge_views
from ctnet.detect.opening import load_detector, open_exported
from ctnet.detect.stream import view_detections
from ctnet.detect.views import network_input, render_views
from ctnet.devices import PrecisionName
from ctnet.export.formats import format_of
from ctnet.families.family import Outputs
from ctnet.types import Instances

STAGES = ("preprocess", "forward", "decode")
NAMES = {
    "int8": "int8",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
}  # the first that is in a detector's words


@dataclass(frozen=True)
class Entry:
    """How a runtime is opened: its file of weights or of an exported network, the device, and the images.

    With `trust` an exported program is run whoever wrote it.
    """

    runtime: str
    file: Path
    device: str
    precision: PrecisionName
    recipe: Recipe
    images: tuple[Path, ...]
    trust: bool = False


class InferenceRunner:
    """One runtime over real images, from pixels in memory to boxes in pixels."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.images = [read_image(file) for file in entry.images]
        self.before = resident_bytes()
        self.detector = _open(entry)

    def precision(self) -> str:
        """Return its precision: fp32, bf16, fp16 or int8."""
        return next(short for name, short in NAMES.items() if name in self.detector.precision)

    @torch.inference_mode()
    def outputs(self, count: int) -> dict[str, NDArray[np.float32]]:
        """Return the raw outputs of the best stack for the first images."""
        preprocess, forward, _ = self._stages(count)
        outputs = forward(preprocess(None))[1]
        heads = outputs.named() if isinstance(outputs, Instances) else outputs
        return {name: values.float().cpu().numpy() for name, values in heads.items()}

    @torch.inference_mode()
    def warm_up(self, batch: int, runs: int) -> None:
        """Run batches of a size untimed; a compiled network is compiled for this size alone."""
        if self.entry.runtime == "compiled":
            torch._dynamo.reset()  # otherwise a second batch size makes Dynamo switch to dynamic shapes
        self._run(batch, max(1, runs))

    @torch.inference_mode()
    def measure(self, batch: int, runs: int) -> list[tuple[float, ...]]:
        """Return the seconds of each stage of each run, after an untimed one."""
        return self._run(batch, 1 + runs)[1:]

    def memory(self) -> Memory | None:
        """Return the peak memory so far."""
        return peak_memory(self.detector.device, self.before)

    def _run(self, batch: int, runs: int) -> list[tuple[float, ...]]:
        stages, synchronize = self._stages(batch), self.detector.device.plugin.synchronize
        return [stage_seconds(stages, synchronize) for _ in range(runs)]

    def _stages(self, batch: int) -> Sequence[Callable[[Any], Any]]:
        recipe, device = self.entry.recipe, self.detector.device.torch_device
        family, network = self.detector.family, self.detector.model
        settings, multiple = recipe.evaluation, recipe.model.size_multiple
        images = list(islice(cycle(self.images), batch))

        def preprocess(_: object) -> Any:
            views = [render_views(image, recipe.data.image_size, multiple, settings)[0] for image in images]
            return views, network_input(views, recipe.data, device)

        def forward(given: Any) -> tuple[Any, Outputs | Instances]:
            views, images = given
            return views, family.detect(network, images, settings)

        def decode(given: Any) -> object:
            views, outputs = given
            return [merge_views([found], settings) for found in view_detections(family, outputs, views, settings)]

        return preprocess, forward, decode


def _open(entry: Entry) -> Detector:
    format = format_of(entry.file)
    if format is not None:
        return open_exported(entry.file, format, entry.precision, trust=entry.trust)
    return load_detector(entry.file, entry.device, entry.precision, compile=entry.runtime == "compiled")
