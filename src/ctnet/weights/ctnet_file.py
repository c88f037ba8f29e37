"""ctnet's own weights: a safetensors file whose metadata holds the recipe, so that no flag is needed to use it.

A run's `last.pt` reads the same way; it holds the training state beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ctnet._version import __version__
from ctnet.config import Recipe, recipe_from_dict
from ctnet.errors import ConfigError, WeightsError
from ctnet.files import replacing
from ctnet.types import Category
from ctnet.weights.containers.kind import find_kind
from ctnet.weights.containers.refusals import damaged
from ctnet.weights.containers.safetensors_file import read_safetensors
from ctnet.weights.containers.torch_file import load_torch_zip

SCHEMA = "ctnet.weights/1"


@dataclass(frozen=True)
class Weights:
    """A network's tensors and everything needed to use them; `info` is free-form (metrics, step, version)."""

    tensors: Mapping[str, Tensor]
    recipe: Recipe
    categories: tuple[Category, ...]
    info: Mapping[str, Any] = field(default_factory=dict)


def save_weights(path: Path, weights: Weights) -> None:
    """Write a deployable file, whole or not at all. Raises StorageError when the disk refuses."""
    about = {
        "schema": SCHEMA,
        "ctnet": __version__,
        "recipe": weights.recipe.model_dump(mode="json"),
        "categories": [list(category) for category in weights.categories],
        "info": dict(weights.info),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"ctnet": json.dumps(about)})
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def read_weights(path: Path) -> Weights:
    """Return the weights of a `.safetensors` or `last.pt` written by ctnet, told apart by content, on the cpu.

    Nothing in the file is executed. Raises WeightsError when it is missing, broken or not ctnet's.
    """
    if find_kind(path) != "safetensors":
        state = read_state(path)
        return _weights(path, state["ema"] or state["model"], {**state, "info": {"step": state["step"]}})
    tensors, metadata = read_safetensors(path)
    try:
        about = json.loads(metadata.get("ctnet", "null"))
    except ValueError as error:
        raise damaged(path, error) from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise WeightsError("the file was not written by ctnet", file=path, expected=f"metadata of {SCHEMA}")
    return _weights(path, tensors, about)


def read_state(path: Path) -> dict[str, Any]:
    """Return the training state in a `last.pt`: plain containers and tensors in memory, nothing executed.

    Raises WeightsError when it is missing, broken or not ctnet's.
    """
    # a run goes on for days with these tensors: they must not hang on the file
    state = load_torch_zip(path, in_file=False) if find_kind(path) == "torch" else None
    if not isinstance(state, dict) or "recipe" not in state or "model" not in state:
        raise WeightsError("the file was not written by ctnet train", file=path, expected="a ctnet last.pt")
    return state


def _weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Weights:
    try:
        recipe = recipe_from_dict(about["recipe"], str(path))
        categories = tuple(Category(int(id_), str(name)) for id_, name in about["categories"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise WeightsError("the recipe in the file does not suit this version", file=path, got=error) from None
    return Weights(tensors, recipe, categories, about.get("info", {}))
