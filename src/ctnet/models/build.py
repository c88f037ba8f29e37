"""From a recipe's `model` section to a network."""

from __future__ import annotations

from torch import nn

from ctnet.config import Model
from ctnet.models.centernet import STRIDE, build_centernet

__all__ = ["STRIDE", "build_network"]


def build_network(model: Model, num_classes: int) -> nn.Module:
    """Return the network, randomly initialised, for this many foreground classes."""
    return build_centernet(model, num_classes)
