"""ctnet's own weights: a safetensors file whose metadata holds the recipe, so that no flag is needed to use it.

A run's `last.pt` reads the same way; it holds the training state beside the weights.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ctnet._version import __version__
from ctnet.config import Recipe, StateMetadata, WeightsMetadata, parse_metadata, read_metadata
from ctnet.config.metadata import Metadata
from ctnet.errors import ConfigError, WeightsError
from ctnet.families import family_of
from ctnet.files import replacing
from ctnet.types import Category, KeypointSchema
from ctnet.weights.containers import Container, read_container
from ctnet.weights.containers.kind import find_kind
from ctnet.weights.containers.refusals import damaged
from ctnet.weights.containers.torch_file import load_torch_zip
from ctnet.weights.containers.zip_file import open_zip

SCHEMA = "ctnet.weights/1"
STATE_SCHEMA = "ctnet.state/1"
FOLDED = "folded_norms"  # the entry of `Weights.info` where norms have no statistics of images
CTNET = "ctnet"  # the entry of a file that holds recipe and categories
DIGEST = "ctnet.sha256"  # the entry of a file that holds the SHA-256 of its tensors and of the other entry


@dataclass(frozen=True)
class Weights:
    """A network's tensors and everything needed to use them; `info` is free-form (metrics, step, version).

    `keypoints` are those of its objects, if any. A foreign file adds `file_names`, from our names of tensors to its
    own, and `notes`, remarks for the user.
    """

    tensors: Mapping[str, Tensor]
    recipe: Recipe
    categories: tuple[Category, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    file_names: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keypoints: KeypointSchema | None = None


def save_weights(path: Path, weights: Weights) -> None:
    """Write a deployable file, whole or not at all. Raises StorageError when the disk refuses."""
    about = {
        "schema": SCHEMA,
        "ctnet": __version__,
        **metadata_of(weights),
        "info": dict(weights.info),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
    with replacing(path) as temporary:
        # through our own file: safetensors creates files that only the owner can read
        text = json.dumps(about)
        temporary.write_bytes(save(tensors, metadata={CTNET: text, DIGEST: _digest(tensors, text)}))


def is_own(container: Container) -> bool:
    """Return whether ctnet wrote the file: deployable weights, or the training state of a run."""
    return CTNET in container.meta if container.kind == "safetensors" else {"recipe", "rng"} <= set(container.meta)


def own_weights(container: Container, path: Path, *, verify: bool = True) -> Weights:
    """Return the weights in a file that ctnet wrote.

    With `verify` the whole file is read and its checksums are compared. Raises WeightsError when they differ, or when
    the weights are of another version.
    """
    if container.kind != "safetensors":
        _, state = read_state(path, verify=verify)
        tensors, notes = _in_float32(state.ema or state.model, path)
        return Weights(
            tensors, state.recipe, state.categories, {"step": state.step}, notes=notes, keypoints=state.keypoints
        )
    about = read_own(WeightsMetadata, parse_metadata(container.meta[CTNET]), SCHEMA, path)
    written = container.meta.get(DIGEST)  # files of earlier versions have none
    if verify and written is not None and written != _digest(container.tensors, container.meta[CTNET]):
        raise damaged(path, "its content has another checksum than it was written with; --no-verify skips the check")
    tensors, notes = _in_float32(container.tensors, path)
    return Weights(tensors, about.recipe, about.categories, about.info, notes=notes, keypoints=about.keypoints)


def _in_float32(tensors: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors with floating numbers as the networks have them, and a note where they were others."""
    odd = next(
        (name for name, tensor in tensors.items() if not isinstance(tensor, Tensor) or tensor.is_complex()), None
    )
    if odd is not None:
        raise WeightsError("the file holds something else than real numbers", file=path, key=odd)
    others = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {torch.float32}
    found = {name: tensor.float() if tensor.dtype in others else tensor for name, tensor in tensors.items()}
    types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
    return found, (f"{types} became float32",) if others else ()


def _digest(tensors: Mapping[str, Tensor], about: str) -> str:
    sha = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_weights(path: Path) -> Weights:
    """Return the verified weights in a `best.safetensors` or `last.pt` of ctnet, on the CPU; nothing in it is executed.

    Raises WeightsError when it is missing, broken or not ctnet's.
    """
    container = read_container(path)
    if not is_own(container):
        raise WeightsError("the file was not written by ctnet", file=path, expected=f"metadata of {SCHEMA}")
    return own_weights(container, path)


def read_state(path: Path, *, verify: bool = True) -> tuple[dict[str, Any], StateMetadata]:
    """Return the training state in a `last.pt`, and what of it is plain, checked.

    The state is plain containers and tensors in memory; nothing was executed. Raises WeightsError when it is missing,
    broken, not ctnet's, or, with `verify`, when a checksum of the zip differs.
    """
    # load into memory (no mmap): training outlives the file
    state = load_torch_zip(path, in_file=False) if find_kind(path) == "torch" else None
    if not isinstance(state, dict) or "recipe" not in state or "model" not in state:
        raise WeightsError("the file was not written by ctnet train", file=path, expected="a ctnet last.pt")
    if verify:
        _compare_checksums(path)
    return state, read_own(StateMetadata, state, STATE_SCHEMA, path)


def _compare_checksums(path: Path) -> None:
    try:
        with open_zip(path) as archive:
            spoiled = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise damaged(path, error) from None
    if spoiled is not None:
        raise damaged(path, f"{spoiled} has another checksum than it was written with")


def metadata_of(weights: Weights) -> dict[str, Any]:
    """Return recipe, categories and key points as JSON, as `WeightsMetadata` reads them."""
    return described(weights.recipe, weights.categories, weights.keypoints)


def described(recipe: Recipe, categories: Sequence[Category], keypoints: KeypointSchema | None) -> dict[str, Any]:
    """Return what every file with a network says about it, JSON-ready, as `NetworkMetadata` reads it."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "categories": [list(category) for category in categories],
        "keypoints": None if keypoints is None else keypoints.to_json(),
    }


def read_own(kind: type[Metadata], content: Any, schema: str | None, source: object) -> Metadata:
    """Return what `read_metadata` does, of a network that this version can build. Raises WeightsError."""
    about = read_metadata(kind, content, schema, source)
    try:
        family_of(about.recipe, about.keypoints)  # knows its heads
    except ConfigError as error:
        raise WeightsError(
            f"the recipe in the file does not suit ctnet {__version__}", file=source,
            written_by=f"ctnet {content['ctnet']}" if "ctnet" in content else None,
            got=error.in_a_line("setting"),
        ) from None  # fmt: skip
    return about
