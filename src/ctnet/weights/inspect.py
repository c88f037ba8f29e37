"""The content of a file of weights, and whether it fits the network it is for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.config import Model
from ctnet.families import build_network
from ctnet.types import Category, KeypointSchema
from ctnet.weights.containers import Container, read_container
from ctnet.weights.ctnet_file import Weights, is_own, own_weights
from ctnet.weights.fit import FitReport, fit
from ctnet.weights.foreign import Reading, foreign_weights, read_foreign

SCHEMA = "ctnet.weights.inspect/1"


def inspect_file(path: Path) -> dict[str, Any]:
    """Return what the file holds as JSON-ready facts; `fits` is true when every tensor fits.

    Raises WeightsError when it is unreadable or no format knows its tensors.
    """
    container = read_container(path)
    document: dict[str, Any] = {"schema": SCHEMA, "file": str(path), "bytes": path.stat().st_size}
    document |= _contents(container)
    if is_own(container):
        weights = own_weights(container, path)
        document |= {"format": "ctnet", "title": "ctnet"} | _detector(weights)
        document |= _fit(fit(_empty_like(weights), weights.tensors), {})
        return document
    reading = read_foreign(container, path)
    document |= {"format": reading.format.name, "title": reading.format.title}
    left_out = _by_reason(reading)
    if reading.num_classes is None:
        network = _empty(reading.model, 1, reading.keypoints).get_submodule("backbone")
        backbone = {name.removeprefix("backbone."): tensor for name, tensor in reading.tensors.items()}
        document |= {"kind": "backbone", "model": {"backbone": reading.model.backbone}, "notes": list(reading.notes)}
        names = {ours.removeprefix("backbone."): theirs for ours, theirs in reading.file_names.items()}
        return document | _fit(fit(network, backbone, names), left_out)
    weights = foreign_weights(reading, path)
    network = _empty_like(weights)
    return document | _detector(weights) | _fit(fit(network, weights.tensors, weights.file_names), left_out)


def _contents(container: Container) -> dict[str, Any]:
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for name, tensor in container.tensors.items():
        groups[name.partition(".")[0]].append(tensor)
    return {
        "container": container.kind,
        "part": container.part,
        "tensors": len(container.tensors),
        "parameters": sum(t.numel() for t in container.tensors.values() if t.is_floating_point()),
        "types": dict(Counter(str(t.dtype).removeprefix("torch.") for t in container.tensors.values())),
        "groups": [
            {"prefix": prefix, "tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}
            for prefix, tensors in groups.items()
        ],
    }


def _detector(weights: Weights) -> dict[str, Any]:
    recipe = weights.recipe
    return {
        "kind": "detector",
        "model": recipe.model.model_dump(mode="json"),
        "classes": _names(weights.categories),
        "keypoints": None if weights.keypoints is None else list(weights.keypoints.names),
        "recipe": recipe.name,
        "pictures": recipe.data.model_dump(mode="json", include={"image_size", "color_order", "mean", "std"}),
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "info": dict(weights.info),
        "notes": list(weights.notes),
    }


def _names(categories: tuple[Category, ...]) -> list[str]:
    return [category.name for category in categories]


def _fit(report: FitReport, left_out: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        "fit": {
            "loaded": len(report.loaded),
            "other_shape": list(report.other_shape),
            "missing": list(report.missing),
            "unexpected": list(report.unexpected),
            "left_out": dict(left_out),
        },
        "fits": report.complete,
    }


def _by_reason(reading: Reading) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in reading.left_out:
        reasons.setdefault(reason, []).append(name)
    return reasons


def _empty_like(weights: Weights) -> torch.nn.Module:
    return _empty(weights.recipe.model, len(weights.categories), weights.keypoints)


def _empty(model: Model, num_classes: int, keypoints: KeypointSchema | None) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(model, num_classes, keypoints)
