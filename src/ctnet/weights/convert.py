"""Weights for other projects' code: their names, their containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ctnet.config import Data, Model
from ctnet.errors import WeightsError
from ctnet.weights.centernet_names import centernet_pairs
from ctnet.weights.containers import write_torch
from ctnet.weights.ctnet_file import CTNET, Weights, metadata_of, save_weights
from ctnet.weights.mmdet_names import mmdet_pairs
from ctnet.weights.names import foreign_names

Target = Literal["ctnet", "centernet", "mmdet"]
SUFFIXES: dict[Target, str] = {"ctnet": ".safetensors", "centernet": ".pth", "mmdet": ".pth"}
_CENTERNET_PICTURES = Data()
_LATERAL = "up-sampling that adds the trunk's finer maps (model.neck=lateral)"


def convert_weights(weights: Weights, to: Target, path: Path) -> list[str]:
    """Write the weights as the target's code reads them and return what its user should know.

    A file for another project also carries ctnet's recipe, so that nothing is lost on the way back. Raises
    WeightsError when the target has no such network, StorageError when the disk refuses.
    """
    if to == "ctnet":
        save_weights(path, weights)
        return []
    reason = (_centernet_lacks if to == "centernet" else _mmdet_lacks)(weights.recipe.model)
    if reason:
        raise WeightsError(f"{to} has no such network", got=reason)
    tensors, notes = dict(weights.tensors), []
    if to == "mmdet":
        tensors, folded = without_deform_bias(tensors)
        if folded:
            notes.append(f"mmdet has no bias in deformable layers: {folded} went into the norms behind them")
    elif not weights.recipe.model.deform_bias:
        tensors = _with_zero_bias(tensors)
    pairs = centernet_pairs(weights.recipe.model) if to == "centernet" else mmdet_pairs(weights.recipe.model)
    names = foreign_names(tensors, pairs)
    about: dict[str, Any] = {CTNET: metadata_of(weights)}
    if to == "mmdet":
        about["meta"] = {"dataset_meta": {"classes": [category.name for category in weights.categories]}}
    else:
        about["epoch"] = weights.info.get("epoch", 0)
        notes += _about_pictures(weights.recipe.data)
    write_torch(path, {names[name]: tensor for name, tensor in tensors.items()}, **about)
    return notes


def without_deform_bias(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return the tensors with deformable biases moved into the running mean behind them, and how many were not zero.

    In evaluation the network computes the same up to rounding, exactly the same where the bias was zero; in
    training such a bias has no effect.
    """
    moved, count = dict(tensors), 0
    for name in tensors:
        module, _, leaf = name.rpartition(".")
        if leaf == "bias" and module.endswith(".deform"):
            bias, mean = moved.pop(name), f"{module}_norm.running_mean"
            moved[mean] = moved[mean] - bias
            count += bool(bias.any())
    return moved, count


def _with_zero_bias(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    complete = {}
    for name, tensor in tensors.items():
        complete[name] = tensor
        if name.endswith(".deform.weight"):
            complete[name.removesuffix("weight") + "bias"] = torch.zeros(tensor.shape[0])
    return complete


def _centernet_lacks(model: Model) -> str | None:
    if model.neck == "conv":
        return "ordinary convolutions before the transposed ones (model.neck=conv)"
    if model.backbone == "mobilenetv2":
        return "backbone mobilenetv2"
    if model.neck == "lateral":
        return _LATERAL
    return "stride in the 1x1 convolutions (model.stride_in_1x1)" if model.stride_in_1x1 else None


def _mmdet_lacks(model: Model) -> str | None:
    if not model.backbone.startswith("resnet"):
        return f"backbone {model.backbone}; mmdet has ResNets"
    if model.neck == "plain":
        return "transposed convolutions alone (model.neck=plain)"
    if model.neck == "lateral":
        return _LATERAL
    if model.class_specific_size:
        return "a box size per class (model.class_specific_size)"
    if not model.predict_offset:
        return "no offset head (model.predict_offset=false)"
    if model.head_channels == 0:
        return "heads of one layer (model.head_channels=0)"
    return "stride in the 1x1 convolutions (model.stride_in_1x1)" if model.stride_in_1x1 else None


def _about_pictures(data: Data) -> list[str]:
    """Return what the original code must be told, since its files do not say how pictures enter the network."""
    theirs = _CENTERNET_PICTURES
    if (data.color_order, data.mean, data.std) == (theirs.color_order, theirs.mean, theirs.std):
        return []
    pictures = f"{data.color_order.upper()} pictures with mean {list(data.mean)} and std {list(data.std)}"
    return [f"these weights see {pictures} of values in 0..1: set that in the original code, whose own are others"]
