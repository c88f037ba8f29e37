"""The contract of a detector family: one object that owns targets, network, loss and decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctnet.config import Evaluation, Recipe
from ctnet.data.sample import Encoder
from ctnet.errors import ConfigError
from ctnet.ops import Peaks, decode_peaks
from ctnet.types import Detections, Instances, KeypointSchema, Objects, Targets

__all__ = ["Encoder", "Family", "FindPeaks", "Keep", "Outputs", "Sum", "alone"]

Outputs = Mapping[str, Tensor]
"""raw maps of a network, (B,D,H,W) by name"""
FindPeaks = Callable[[Tensor, int], Peaks]
Keep = Callable[[Tensor, Tensor, float, int], Tensor]
"""`keep(boxes, scores, iou_threshold, limit)` returns which of boxes (B,K,4) NMS keeps of each class, (B,C,K), given
scores (B,C,K); of a class the `limit` strongest at most"""
Sum = Callable[[Tensor], Tensor]
"""returns the sum of a tensor over all ranks, which call it alike; gradients do not pass"""


def alone(tensor: Tensor) -> Tensor:
    """Return the sum over the only rank."""
    return tensor


class Family(ABC):
    """A recipe's kind of detector. `keypoints` describes the key points of its objects, if any."""

    strides: tuple[int, ...]
    """input pixels from cell to cell of each map that is decoded"""
    output_names: tuple[str, ...]
    """the raw maps of the network, in the order in which exported files return them"""
    instance_names: tuple[str, ...]
    """the fields of decoded instances, in that order"""
    loss_weights: Mapping[str, float]
    """the weight of each part of the loss, by name; what `losses` returns is not weighted"""

    static_shapes = False
    """whether the device wants all shapes to depend on settings alone; whoever opens a device sets it"""

    decodes_anywhere = True
    """whether decoding takes nothing but operators that every exported format has"""

    beyond_raw = ""
    """what of the network raw maps leave out, in a few words; empty: nothing"""

    drawers: tuple[Callable[[NDArray[np.uint8], Detections], None], ...] = ()
    """draw values of further heads into an image"""

    def __init__(self, recipe: Recipe, keypoints: KeypointSchema | None = None) -> None:
        self.recipe = recipe
        self.keypoints = keypoints

    @property
    def size_multiple(self) -> int:
        """Number of pixels that both sides of an input are multiples of."""
        return self.recipe.model.size_multiple

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """The parts of the loss, in order."""
        return tuple(self.loss_weights)

    @abstractmethod
    def build(self, num_classes: int) -> nn.Module:
        """Return the network, randomly initialised. It maps a normalised batch to a list of raw maps, best last."""

    @abstractmethod
    def encoder(self, num_classes: int) -> Encoder:
        """Return what makes the targets."""

    def start_from(self, network: nn.Module, rows: Mapping[str, Tensor]) -> list[str]:
        """Adapt a fresh network to the rows of the data's targets; return sentences about it."""
        return []

    @abstractmethod
    def normalisers(self, targets: Targets) -> dict[str, Tensor]:
        """Return what parts of the loss are divided by, float32 scalars on the device of the batch.

        Those of the parts of a batch, such as the ranks', add up to those of the whole.
        """

    @abstractmethod
    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Targets,
        normalisers: Mapping[str, Tensor],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        sum_over_ranks: Sum = alone,
    ) -> dict[str, Tensor]:
        """Return the parts of the loss, unweighted scalars by name; the network runs inside `autocast`.

        When the batch is a part of a larger one, `normalisers` are those of the whole, and the losses of the parts add
        up to its loss. Divisors that depend on outputs are summed by `sum_over_ranks`.
        """

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the parts."""
        return torch.stack([self.loss_weights[name] * part for name, part in parts.items()]).sum()

    def detect(
        self, network: nn.Module, images: Tensor, settings: Evaluation, image_hw: Tensor | None = None
    ) -> Outputs | Instances:
        """Return the raw maps of a normalised batch (N,3,H,W), or instances where the network or the family decodes.

        With `settings.flip` they are of its mirror images as well. `image_hw` (N,2) are the heights and widths of
        images that do not fill their canvas: they lie at its top left. Raises ConfigError when mirror images cannot be
        joined because the network decodes.
        """
        outputs = network(torch.cat([images, images.flip(3)]) if settings.flip else images)
        if not isinstance(outputs, Instances):
            return outputs[-1]  # type: ignore[no-any-return]
        if settings.flip:
            raise ConfigError("flip test needs raw outputs, and this network returns decoded boxes", hint="--no-flip")
        return outputs

    def instances(
        self, outputs: Outputs | Instances, settings: Evaluation, peaks: FindPeaks = decode_peaks
    ) -> Instances:
        """Return the instances of a batch from what `detect` returned."""
        if isinstance(outputs, Instances):
            return outputs
        return self.decode(self.unflip(outputs) if settings.flip else outputs, settings.top_k, peaks)

    @abstractmethod
    def unflip(self, outputs: Outputs) -> Outputs:
        """Return the maps of N images from those of N images and their N mirror images."""

    @abstractmethod
    def decode(self, outputs: Outputs, top_k: int, peaks: FindPeaks = decode_peaks) -> Instances:
        """Return the strongest `top_k` instances of each image; `peaks` finds them as `decode_peaks` does."""

    def exported(
        self, network: nn.Module, images: Tensor, settings: Evaluation, peaks: FindPeaks, keep: Keep
    ) -> Instances:
        """Return the instances in a graph that is traced for other runtimes, by functions that suit these."""
        return self.decode(network(images)[-1], settings.top_k, peaks)

    @abstractmethod
    def taught(self, targets: Targets) -> list[tuple[Objects, Tensor | None]]:
        """Return, for each image of a batch, the objects that its targets stand for and where heat is, (H,W)."""

    def draw(self, image_bgr: NDArray[np.uint8], found: Detections) -> None:
        """Draw everything except boxes into an image."""
        for draw in self.drawers:
            draw(image_bgr, found)

    def class_layers(self, network: nn.Module) -> Iterator[tuple[str, int, int]]:
        """Yield names of layers with output channels of their own for each class: how many each, and how many more."""
        return iter(())

    def prepare(self, network: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """Return the network for inference, of parts that are graphs each made ready by `prepare`; here it is one."""
        return prepare(network)
