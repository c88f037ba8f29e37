"""What the settings of all families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from ctnet.config.families.backbones import BACKBONES, Backbone, known_backbone
from ctnet.config.ranges import Section


class Model(Section):
    """The network; each family has settings of its own."""

    family: str = "centernet"
    """kind of detector; it determines the other settings of `model` and `loss`"""
    backbone: Annotated[str, AfterValidator(known_backbone)] = "resnet18"
    """resnet18, resnet34, resnet50, resnet101, resnet152, dla34, hourglass104 or mobilenetv2; all but ResNets bring
    their own up-sampling"""
    stride_in_1x1: bool = False
    """bottlenecks halve the map in their first 1x1 convolution, not the 3x3 one (detectron2's MSRA weights)"""

    @property
    def row(self) -> Backbone:
        """The backbone's row of the table."""
        return BACKBONES[self.backbone]

    @property
    def foreign(self) -> Mapping[str, str]:
        """For each project that has such detectors, `module:function` below `ctnet.weights`: names of tensors there."""
        return self.row.foreign

    @property
    def size_multiple(self) -> int:
        """Number of pixels that both sides of an input are multiples of: the coarsest stride."""
        return self.row.size_multiple


class Loss(Section):
    """Parts of the loss; each family has settings of its own."""

    def check(self, model: Model) -> None:
        """Raise ValueError for parts that do not suit the network."""
