"""ctnet's own weights: a safetensors file whose metadata holds the recipe, so that no flag is needed to use it.

A run's `last.pt` reads the same way; it holds the training state beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ctnet._version import __version__
from ctnet.config import Recipe, recipe_from_dict
from ctnet.errors import ConfigError, WeightsError
from ctnet.families import family_of
from ctnet.files import replacing
from ctnet.types import Category
from ctnet.weights.containers import Container, read_container
from ctnet.weights.containers.kind import find_kind
from ctnet.weights.containers.refusals import damaged
from ctnet.weights.containers.torch_file import load_torch_zip

SCHEMA = "ctnet.weights/1"
CTNET = "ctnet"  # the entry of a file that holds recipe and categories


@dataclass(frozen=True)
class Weights:
    """A network's tensors and everything needed to use them; `info` is free-form (metrics, step, version).

    A foreign file adds `file_names`, from our names of tensors to its own, and `notes`, what a reader should know.
    """

    tensors: Mapping[str, Tensor]
    recipe: Recipe
    categories: tuple[Category, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    file_names: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def save_weights(path: Path, weights: Weights) -> None:
    """Write a deployable file, whole or not at all. Raises StorageError when the disk refuses."""
    about = {
        "schema": SCHEMA,
        "ctnet": __version__,
        **describe(weights),
        "info": dict(weights.info),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
    with replacing(path) as temporary:
        # through a file of ours: safetensors' own could be read by nobody else
        temporary.write_bytes(save(tensors, metadata={CTNET: json.dumps(about)}))


def is_own(container: Container) -> bool:
    """Say whether ctnet wrote the file: deployable weights, or the training state of a run."""
    return CTNET in container.meta if container.kind == "safetensors" else {"recipe", "rng"} <= set(container.meta)


def own_weights(container: Container, path: Path) -> Weights:
    """Return the weights in a file that ctnet wrote. Raises WeightsError when they are of another version."""
    if container.kind != "safetensors":
        state = read_state(path)
        recipe, categories = recipe_and_categories(state, path)
        return Weights(state["ema"] or state["model"], recipe, categories, {"step": state["step"]})
    try:
        about = json.loads(container.meta[CTNET])
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        written_by = f"ctnet {about.get('ctnet', '?')}" if isinstance(about, dict) else None
        raise WeightsError(
            "the file was written by another version of ctnet", file=path, written_by=written_by,
            expected=f"{SCHEMA} of ctnet {__version__}",
        )  # fmt: skip
    recipe, categories = recipe_and_categories(about, path)
    return Weights(container.tensors, recipe, categories, about.get("info", {}))


def read_weights(path: Path) -> Weights:
    """Return the weights in a `best.safetensors` or `last.pt` of ctnet, on the cpu; nothing in it is executed.

    Raises WeightsError when it is missing, broken or not ctnet's.
    """
    container = read_container(path)
    if not is_own(container):
        raise WeightsError("the file was not written by ctnet", file=path, expected=f"metadata of {SCHEMA}")
    return own_weights(container, path)


def read_state(path: Path) -> dict[str, Any]:
    """Return the training state in a `last.pt`: plain containers and tensors in memory, nothing executed.

    Raises WeightsError when it is missing, broken or not ctnet's.
    """
    # a run goes on for days with these tensors: they must not hang on the file
    state = load_torch_zip(path, in_file=False) if find_kind(path) == "torch" else None
    if not isinstance(state, dict) or "recipe" not in state or "model" not in state:
        raise WeightsError("the file was not written by ctnet train", file=path, expected="a ctnet last.pt")
    return state


def describe(weights: Weights) -> dict[str, Any]:
    """Return recipe and categories as JSON, as `recipe_and_categories` reads them."""
    return {
        "recipe": weights.recipe.model_dump(mode="json"),
        "categories": [list(category) for category in weights.categories],
    }


def recipe_and_categories(about: Mapping[str, Any], source: object) -> tuple[Recipe, tuple[Category, ...]]:
    """Return what a file of weights says about itself. Raises WeightsError."""
    try:
        recipe = recipe_from_dict(about["recipe"], str(source))
        family_of(recipe)  # knows its heads
        categories = tuple(Category(int(id_), str(name)) for id_, name in about["categories"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the recipe in the file does not suit ctnet {__version__}", file=source,
            written_by=f"ctnet {about['ctnet']}" if "ctnet" in about else None, got=error,
        ) from None  # fmt: skip
    return recipe, categories
