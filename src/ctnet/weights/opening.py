"""Load networks from any file of weights, ctnet's or another project's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ctnet.config import FINE_TUNING_RECIPE, FINE_TUNING_RECIPES, LoadedRecipe, load_recipe
from ctnet.families import build_network
from ctnet.weights.containers import read_container
from ctnet.weights.ctnet_file import Weights, is_own, own_weights
from ctnet.weights.fit import load_partially, require_fit
from ctnet.weights.foreign import foreign_weights, read_foreign, with_config


def open_weights(path: Path, config: str | None = None, *, verify: bool = True) -> Weights:
    """Return the weights in a file, on the CPU; nothing in the file is executed.

    `config` names a recipe whose images, decoding and test settings replace those that came with the file. `verify`
    compares checksums where the file has them, for which it is read as a whole. Raises WeightsError when the file is
    missing, broken, of no known format or no detector, ConfigError for `config`.
    """
    container = read_container(path)
    if is_own(container):
        weights = own_weights(container, path, verify=verify)
    else:
        weights = foreign_weights(read_foreign(container, path), path)
    return with_config(weights, config) if config else weights


def fine_tuning_recipe(path: Path, overrides: Iterable[str], flags: Mapping[str, Any]) -> LoadedRecipe:
    """Return the recipe to go on from a file of weights: the family's for fine-tuning, with the network of the weights.

    Input size, unless images have sizes of their own, and colours are those of the weights too; overrides and flags are
    as `load_recipe` takes them. Raises
    what `open_weights` does.
    """
    theirs = open_weights(path, verify=False).recipe  # training verifies, once
    size = {"image_size"} if theirs.evaluation.short_side is None else set()
    data = theirs.data.model_dump(include={"color_order", "mean", "std"} | size)
    brought = {"name": theirs.name, "model": theirs.model.model_dump(), "data": data}
    recipe = FINE_TUNING_RECIPES.get(theirs.model.family, FINE_TUNING_RECIPE)
    if recipe != FINE_TUNING_RECIPE:
        brought["loss"] = theirs.loss.model_dump()  # which suits the levels and stages of the network
    return load_recipe(recipe, overrides, flags, brought=(f"--weights {path}", brought))


def load_network(weights: Weights, source: object, *, allow_partial: bool = False) -> tuple[nn.Module, list[str]]:
    """Return the network with these weights and remarks for the user.

    Its tensors are those of `weights`, not copies. With `allow_partial` what the file lacks stays random and what it
    has too much is dropped. Raises WeightsError when the weights do not fit, or, partially, when none does.
    """
    notes = list(weights.notes)
    num_classes = len(weights.categories)
    if allow_partial:
        network = build_network(weights.recipe.model, num_classes, weights.keypoints)
        report = load_partially(network, weights.tensors, source, weights.file_names)
        return network, notes if report.complete else [*notes, report.sentence()]
    # random initialisation is faster than the meta device, for which torch imports its compiler
    with torch.random.fork_rng(devices=[]):  # the caller's generator keeps its state
        network = build_network(weights.recipe.model, num_classes, weights.keypoints)
    require_fit(network, weights.tensors, source, weights.file_names)
    network.load_state_dict(weights.tensors, assign=True)
    return network, notes
