"""ctnet's own weights: a safetensors file whose metadata holds the recipe, so that no flag is needed to use it.

A run's `last.pt` reads the same way; it holds the training state beside the weights.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ctnet._version import __version__
from ctnet.config import Recipe, recipe_from_dict
from ctnet.errors import ConfigError, WeightsError
from ctnet.files import replacing
from ctnet.types import Category

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
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError("the weights cannot be read", file=path, got=error.strerror) from None
    return _read_state(path) if head.startswith(b"PK") else _read_safetensors(path)


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("ctnet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            "the file is not whole or holds no weights",
            file=path,
            got=error,
            hint="ctnet writes .safetensors files",
        ) from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise WeightsError("the file was not written by ctnet", file=path, expected=f"metadata of {SCHEMA}")
    return _weights(path, tensors, about)


def read_state(path: Path) -> dict[str, Any]:
    """Return the training state in a `last.pt`: plain containers and tensors, nothing executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError("there is no such file", file=path) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise WeightsError(
            "the file is not whole or not a training state", file=path, got=str(error).partition("\n")[0]
        ) from None
    if not isinstance(state, dict) or "recipe" not in state or "model" not in state:
        raise WeightsError("the file was not written by ctnet train", file=path, expected="a ctnet last.pt")
    return state


def _read_state(path: Path) -> Weights:
    state = read_state(path)
    return _weights(path, state["ema"] or state["model"], {**state, "info": {"step": state["step"]}})


def _weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Weights:
    try:
        recipe = recipe_from_dict(about["recipe"], str(path))
        categories = tuple(Category(int(id_), str(name)) for id_, name in about["categories"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise WeightsError("the recipe in the file does not suit this version", file=path, got=error) from None
    return Weights(tensors, recipe, categories, about.get("info", {}))
