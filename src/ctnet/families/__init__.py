"""Kinds of detectors: each family owns its settings, network, targets, loss and decoding."""

from __future__ import annotations

from torch import nn

from ctnet.config import Model, Recipe
from ctnet.families.centernet import CenterNetFamily
from ctnet.families.family import Encoder, Family
from ctnet.families.heads import HEADS
from ctnet.types import FACE, PERSON, KeypointSchema

__all__ = ["FAMILIES", "Encoder", "Family", "assumed_keypoints", "build_network", "family_of"]

FAMILIES: dict[str, type[Family]] = dict.fromkeys(("centernet", "centerface", "pose"), CenterNetFamily)
"""The three differ in settings and heads alone."""


def family_of(recipe: Recipe, keypoints: KeypointSchema | None = None) -> Family:
    """Return the recipe's kind of detector. Raises ConfigError for heads that do not fit together."""
    return FAMILIES[recipe.model.family](recipe, keypoints)


def assumed_keypoints(model: Model) -> KeypointSchema | None:
    """Return the key points of a network that comes without data: a face's for centerface, else COCO's of a person.

    None for networks without any.
    """
    names = getattr(model, "head_names", ())
    if not any(HEADS[name].needs_keypoints for name in names if name in HEADS):
        return None
    return FACE if model.family == "centerface" else PERSON


def build_network(model: Model, num_classes: int, keypoints: KeypointSchema | None = None) -> nn.Module:
    """Return the network of a recipe's `model` section, randomly initialised, for this many foreground classes.

    `keypoints` are those of its objects, if any.
    """
    recipe = Recipe(model=model, loss={}, data={"image_size": 4 * model.size_multiple})  # type: ignore[arg-type]
    return family_of(recipe, keypoints).build(num_classes)
