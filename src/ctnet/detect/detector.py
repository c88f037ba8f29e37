"""A network with its recipe, categories and device."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from ctnet.config import Evaluation, Recipe, changed
from ctnet.detect.inputs import ColorOrder, Shown, each_image
from ctnet.detect.stream import detect_stream, view_detections
from ctnet.detect.views import RenderedView, image_sizes, network_input, render_views
from ctnet.devices import OpenDevice, Prepared
from ctnet.families import Family, family_of
from ctnet.precision import PrecisionName
from ctnet.types import Category, Detections, KeypointSchema

Key = TypeVar("Key", bound=Hashable)
BUCKET = 256


class Detector:
    """Detects objects in images.

    `model` is the network alone: `model(x)` takes a normalised (N,3,H,W) float32 batch on the detector's device and
    returns a list of dicts of raw head outputs, the best last; `family` decodes them. `precision` is what it computes
    in, `precision_reason` why; `notes` are remarks on the weights for the user.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        categories: Sequence[Category],
        device: OpenDevice,
        precision: str = "float32",
        precision_reason: str = "as it was built",
        *,
        keypoints: KeypointSchema | None = None,
    ) -> None:
        self.family = family_of(recipe, keypoints)
        self.family.static_shapes = device.plugin.static_shapes
        self.model = model.eval()
        self.precision = precision
        self.precision_reason = precision_reason
        self.notes: tuple[str, ...] = ()
        self.recipe = recipe
        self.categories = tuple(categories)
        self.device = device

    def detect(
        self, images: Any, settings: Evaluation | None = None, *, color_order: ColorOrder | None = None
    ) -> list[Detections]:
        """Return the detections of each image, boxes in its pixels, strongest first.

        `images` is one image or many, in a list, a generator or a batch: paths, PIL images, arrays (H,W), (H,W,1),
        (H,W,3) or (H,W,4), BGR unless `color_order` says RGB, of uint8, uint16 or floating numbers in 0..1 or 0..255,
        and tensors (C,H,W), for which `color_order` must be stated. Images of any sizes may be mixed.
        `settings` default to the recipe's; their batch size changes speed only. Raises DataError for anything else.
        """
        settings = settings or self.recipe.evaluation
        size, multiple = self.recipe.data.image_size, self.recipe.model.size_multiple
        shown: list[Shown] = []

        def rendered() -> Iterator[tuple[int, list[RenderedView]]]:
            for image in each_image(images):
                shown.append(Shown(image, color_order, self.categories, self.family, self.recipe.data.value_range))
                yield len(shown) - 1, render_views(shown[-1].image(), size, multiple, settings, self.bucket)

        found = dict(self.stream(rendered(), settings))
        return [replace(found[i], origin=origin) for i, origin in enumerate(shown)]

    def stream(
        self, images: Iterable[tuple[Key, list[RenderedView]]], settings: Evaluation
    ) -> Iterator[tuple[Key, Detections]]:
        """Yield (key, detections) for each rendered image, in the order in which they are finished."""
        return detect_stream(partial(self._detect_views, settings), images, settings)

    @property
    def bucket(self) -> int:
        """Number of pixels that sides of kept resolutions are padded to multiples of: few sizes to compile for."""
        return BUCKET if self.device.plugin.static_shapes else 1

    @torch.inference_mode()
    def _detect_views(self, settings: Evaluation, views: Sequence[RenderedView]) -> list[Detections]:
        # with static shapes, smaller batches are padded with black images
        count = settings.batch_size if self.device.plugin.static_shapes else len(views)
        where = self.device.torch_device
        x, image_hw = network_input(views, self.recipe.data, where, count), image_sizes(views, where, count)
        return view_detections(self.family, self.family.detect(self.model, x, settings, image_hw), views, settings)

    def how_it_runs(self) -> str:
        """Return a line with the device, the precision and the reason for it."""
        device = f"{self.device.torch_device} ({self.device.reason})"
        return f"on {device}, {self.precision} ({self.precision_reason})"

    def with_image_size(self, image_size: tuple[int, int]) -> Detector:
        """Return a detector over the same network with another input size (height, width)."""
        recipe = changed(self.recipe, {"data.image_size": image_size})
        return Detector(
            self.model, recipe, self.categories, self.device, self.precision, self.precision_reason,
            keypoints=self.family.keypoints,
        )  # fmt: skip


def prepare_detector(
    network: nn.Module,
    family: Family,
    categories: Sequence[Category],
    device: OpenDevice,
    precision: PrecisionName = "auto",
    *,
    compile: bool = False,
) -> Detector:
    """Return a detector over a copy of the network that is made ready for inference on the device.

    Raises ConfigError when the device lacks the precision.
    """
    prepared: list[Prepared] = []

    def prepare(part: nn.Module) -> nn.Module:
        prepared.append(device.plugin.prepare(part, device.torch_device, precision=precision, compile=compile))
        return prepared[-1].network

    ready = family.prepare(network, prepare).to(device.torch_device)
    how = prepared[0]
    return Detector(ready, family.recipe, categories, device, how.precision, how.reason, keypoints=family.keypoints)
