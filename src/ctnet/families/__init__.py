"""Kinds of detectors: each family owns its settings, network, targets, loss and decoding."""

from __future__ import annotations

from torch import nn

from ctnet.config import Model, Recipe
from ctnet.families.centernet import CenterNetFamily
from ctnet.families.centernet2 import CenterNet2Family
from ctnet.families.family import Encoder, Family
from ctnet.types import KeypointSchema

__all__ = ["FAMILIES", "Encoder", "Family", "build_network", "family_of"]

FAMILIES: dict[str, type[Family]] = {"centernet": CenterNetFamily, "centernet2": CenterNet2Family}


def family_of(recipe: Recipe, keypoints: KeypointSchema | None = None) -> Family:
    """Return the recipe's kind of detector. Raises ConfigError for heads that do not fit together."""
    return FAMILIES[recipe.model.family](recipe, keypoints)


def build_network(model: Model, num_classes: int) -> nn.Module:
    """Return the network of a recipe's `model` section, randomly initialised, for this many foreground classes."""
    recipe = Recipe(model=model, loss={}, data={"image_size": 4 * model.size_multiple})  # type: ignore[arg-type]
    return family_of(recipe).build(num_classes)
