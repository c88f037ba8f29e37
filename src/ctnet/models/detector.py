"""A network together with all that is needed to use it: recipe, categories, device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ctnet.config import Evaluation, Recipe, changed
from ctnet.devices import OpenDevice, PrecisionName, open_device
from ctnet.models.inference import detect_stream, render_views
from ctnet.types import Category, Detections
from ctnet.weights.opening import load_network, open_weights


class Detector:
    """Pictures in, detections out.

    `model` is the network alone: `model(x)` takes a normalised (N,3,H,W) float32 batch on the detector's device and
    returns a dict of raw head outputs, or a list of these, the best last. `precision` is what it computes in,
    `precision_reason` why; `notes` is what a user should know about the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        categories: Sequence[Category],
        device: OpenDevice,
        precision: str = "float32",
        precision_reason: str = "as it was built",
    ) -> None:
        self.model = model.eval()
        self.precision = precision
        self.precision_reason = precision_reason
        self.notes: tuple[str, ...] = ()
        self.recipe = recipe
        self.categories = tuple(categories)
        self.device = device

    def detect(self, images_bgr: Sequence[NDArray[np.uint8]], settings: Evaluation | None = None) -> list[Detections]:
        """Return the detections of each picture (H,W,3) BGR uint8, boxes in its pixels, strongest first.

        `settings` default to the recipe's; pictures of any sizes may be mixed, and the batch size in `settings`
        changes speed only.
        """
        settings = settings or self.recipe.evaluation
        size, multiple = self.recipe.data.image_size, self.recipe.model.size_multiple
        rendered = ((i, render_views(image, size, multiple, settings)) for i, image in enumerate(images_bgr))
        found = dict(detect_stream(self, rendered, settings))
        return [found[i] for i in range(len(images_bgr))]

    def how_it_runs(self) -> str:
        """Return device and precision, and why these, in a line."""
        device = f"{self.device.torch_device} ({self.device.reason})"
        return f"on {device}, {self.precision} ({self.precision_reason})"

    def with_image_size(self, image_size: tuple[int, int]) -> Detector:
        """Return a detector over the same network that shows it pictures at another (height, width)."""
        recipe = changed(self.recipe, {"data.image_size": image_size})
        return Detector(self.model, recipe, self.categories, self.device, self.precision, self.precision_reason)


def prepare_detector(
    network: nn.Module,
    recipe: Recipe,
    categories: Sequence[Category],
    device: OpenDevice,
    precision: PrecisionName = "auto",
    *,
    compile: bool = False,
) -> Detector:
    """Return a detector over a copy of the network that is made ready for inference on the device.

    Raises ConfigError when the device lacks the precision.
    """
    ready = device.plugin.prepare(network, device.torch_device, precision=precision, compile=compile)
    return Detector(ready.network, recipe, categories, device, ready.precision, ready.reason)


def load_detector(
    file: str | Path,
    device: str = "auto",
    precision: PrecisionName = "auto",
    *,
    compile: bool = False,
    config: str | None = None,
    allow_partial: bool = False,
    verify: bool = True,
) -> Detector:
    """Return the detector in a file of weights, ready on a device (`auto`, `cpu`, `cuda:1`, ...).

    The file may be ctnet's, the original CenterNet's, mmdet's or MindSpore's; `config` names a recipe whose pictures
    and test settings replace those that come with it. `precision` auto takes what the device runs fast; `compile`
    makes the first batch of each size slow, the others faster. With `allow_partial` what the file lacks is random.
    Without `verify` the checksum of ctnet's files is not compared.
    Raises WeightsError when the file is unusable, DeviceUnavailable or ConfigError for the device.
    """
    weights = open_weights(Path(file), config, verify=verify)
    opened = open_device(device)
    network, notes = load_network(weights, file, allow_partial=allow_partial)
    detector = prepare_detector(network, weights.recipe, weights.categories, opened, precision, compile=compile)
    detector.notes = tuple(notes)
    return detector
