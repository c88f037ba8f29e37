"""The network that is measured: a recipe's, one with weights, or an exported file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from ctnet.bench.operations import operations_per_image, random_network
from ctnet.codec.affine import enlarged
from ctnet.config import DEFAULT_RECIPE, Recipe, load_recipe, recipe_from_dict
from ctnet.detect.opening import open_exported
from ctnet.errors import ConfigError
from ctnet.export.formats import ExportFormat, format_of
from ctnet.export.runtime import RuntimeNetwork
from ctnet.families import assumed_keypoints
from ctnet.types import Category, KeypointSchema
from ctnet.weights.ctnet_file import Weights
from ctnet.weights.opening import load_network, open_weights

CLASSES = 80  # as COCO, where no weights give the number
RANDOM = "random weights"


@dataclass(frozen=True)
class Subject:
    """A recipe with one input size, and the weights of its network.

    `network` is torch's in float32 with the tensors of `weights`, or both are None and `exported` is a file and its
    format, which `trust` runs whoever wrote it. `notes` are remarks for the reader of the figures.
    """

    recipe: Recipe
    categories: tuple[Category, ...]
    source: str
    weights: Weights | None = None
    network: nn.Module | None = None
    exported: tuple[Path, ExportFormat] | None = None
    trust: bool = False
    notes: tuple[str, ...] = ()
    keypoints: KeypointSchema | None = None

    @cached_property
    def operations_per_image(self) -> int:
        """The operations of the convolutions for one image."""
        size = self.recipe.data.image_size
        return operations_per_image(self.recipe.model, len(self.categories), size, self.keypoints)

    def to_dict(self) -> dict[str, Any]:
        """Return the subject as JSON values."""
        return {
            "recipe": self.recipe.name,
            "source": self.source,
            "classes": len(self.categories),
            "image_size": list(self.recipe.data.image_size),
            "operations_per_image": self.operations_per_image,
        }


def open_subject(
    config: str | None,
    weights: Path | None,
    image_size: tuple[int, int] | None,
    *,
    trust: bool = False,
    verify: bool = True,
) -> Subject:
    """Return the subject of a measurement, at `image_size` or the recipe's test size, unflipped and at one scale.

    Without weights it is the recipe's network with random ones. Raises ConfigError, WeightsError, MissingExtra.
    """
    if weights is None:
        recipe = _at_one_size(load_recipe(config or DEFAULT_RECIPE).recipe, image_size)
        keypoints = assumed_keypoints(recipe.model)
        classes = CLASSES if keypoints is None else 1
        categories = tuple(Category(i, f"class {i}") for i in range(classes))
        network = random_network(recipe.model, classes, keypoints=keypoints)
        filled = Weights(network.state_dict(), recipe, categories, keypoints=keypoints)
        what = f"{classes} classes" if keypoints is None else f"{len(keypoints.names)} key points"
        note = f"{recipe.name} with {RANDOM} and {what}: speeds are meaningful, detections are not"
        return Subject(recipe, categories, RANDOM, filled, network, notes=(note,), keypoints=keypoints)
    format = format_of(weights)
    if format is not None:
        if config is not None:
            raise ConfigError("an exported file brings its own recipe", got=f"--config {config}")
        return _exported_subject(weights, format, image_size, trust)
    opened = open_weights(weights, config, verify=verify)
    recipe = _at_one_size(opened.recipe, image_size)
    network, notes = load_network(opened, weights)
    filled = replace(opened, recipe=recipe)
    noted, points = tuple(notes), opened.keypoints
    return Subject(recipe, opened.categories, str(weights), filled, network, notes=noted, keypoints=points)


def _exported_subject(file: Path, format: ExportFormat, image_size: tuple[int, int] | None, trust: bool) -> Subject:
    detector = open_exported(file, format, trust=trust)
    assert isinstance(detector.model, RuntimeNetwork)
    about = detector.model.runtime.about
    if about.size is not None and image_size not in (None, about.size):
        raise ConfigError(
            "the exported graph has a fixed input size", expected="x".join(map(str, about.size)),
            got="x".join(map(str, image_size or ())), hint="leave --image-size out, or export with another",
        )  # fmt: skip
    notes = [f"{file.name} is measured without comparing it with torch; ctnet export has compared it"]
    if about.output == "decoded":
        notes.append("its graph decodes: that time is part of forward")
    if about.batch is not None:
        notes.append(f"its batch is {about.batch}: other batches are split or padded")
    recipe = _at_one_size(about.recipe, about.size or image_size)
    noted, points = tuple(notes), about.keypoints
    made = (file, format)
    return Subject(recipe, about.categories, str(file), exported=made, trust=trust, notes=noted, keypoints=points)


def _at_one_size(recipe: Recipe, image_size: tuple[int, int] | None) -> Recipe:
    content = recipe.model_dump()
    test_size = enlarged(recipe.data.image_size, recipe.evaluation.test_scale, recipe.model.size_multiple)
    content["data"]["image_size"] = image_size or test_size
    content["evaluation"].update(keep_res=False, stretch=False, test_scale=1.0, scales=(1.0,), flip=False)
    return recipe_from_dict(content, "--image-size")
