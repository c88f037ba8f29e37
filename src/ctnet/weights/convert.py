"""Weights for other projects' code: their names, their containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ctnet.config import CenterNetModel, Data, Model, PoseModel
from ctnet.errors import WeightsError
from ctnet.weights.containers import write_torch
from ctnet.weights.ctnet_file import CTNET, Weights, metadata_of, save_weights
from ctnet.weights.names import detector_pairs, foreign_names

Target = Literal["ctnet", "centernet", "mmdet"]
SUFFIXES: dict[Target, str] = {"ctnet": ".safetensors", "centernet": ".pth", "mmdet": ".pth"}
_CENTERNET_INPUT = Data()


def convert_weights(weights: Weights, to: Target, path: Path) -> list[str]:
    """Write the weights as the target's code reads them and return notes for its user.

    A file for another project also carries ctnet's recipe, so that converting back loses nothing. Raises
    WeightsError when the target has no such network, StorageError when the disk refuses.
    """
    if to == "ctnet":
        save_weights(path, weights)
        return []
    model = weights.recipe.model
    reason = _lacks(to, model)
    if reason:
        raise WeightsError(f"{to} has no such network", got=reason)
    tensors, about, notes = (_for_centernet if to == "centernet" else _for_mmdet)(weights)
    names = foreign_names(tensors, detector_pairs(to, model))
    about = {CTNET: metadata_of(weights), **about}
    write_torch(path, {names[name]: tensor for name, tensor in tensors.items()}, **about)
    return notes


Adapted = tuple[Mapping[str, Tensor], dict[str, Any], list[str]]
"""tensors, what is written beside them, and notes for the user"""


def _for_centernet(weights: Weights) -> Adapted:
    assert isinstance(weights.recipe.model, CenterNetModel)
    tensors = weights.tensors if weights.recipe.model.deform_bias else _with_zero_bias(weights.tensors)
    return tensors, {"epoch": weights.info.get("epoch", 0)}, _about_input(weights.recipe.data)


def _for_mmdet(weights: Weights) -> Adapted:
    tensors, folded = without_deform_bias(weights.tensors)
    notes = [f"mmdet has no bias in deformable layers: {folded} went into the norms behind them"] if folded else []
    classes = [category.name for category in weights.categories]
    return tensors, {"meta": {"dataset_meta": {"classes": classes}}}, notes


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


def _lacks(project: str, model: Model) -> str | None:
    """Return what of the network the project does not have, None when it has all of it."""
    if not isinstance(model, CenterNetModel):
        return f"detectors of the family {model.family}"
    if project not in model.row.foreign:
        return f"backbone {model.backbone}"
    theirs = PoseModel.family_heads if project == "centernet" else CenterNetModel.family_heads
    more = set(model.head_names) - set(theirs)
    absent = (
        ("", bool(more), f"heads {', '.join(sorted(more))} (model.heads)"),
        ("centernet", model.neck == "conv", "ordinary convolutions before the transposed ones (model.neck=conv)"),
        ("mmdet", model.neck == "plain", "transposed convolutions alone (model.neck=plain)"),
        ("", model.neck == "lateral", "up-sampling that adds the backbone's finer maps (model.neck=lateral)"),
        ("mmdet", model.class_specific_size, "a box size per class (model.class_specific_size)"),
        ("mmdet", "offset" not in model.head_names, "no offset head (model.predict_offset=false)"),
        ("mmdet", model.head_channels == 0, "heads of one layer (model.head_channels=0)"),
        ("", model.stride_in_1x1, "stride in the 1x1 convolutions (model.stride_in_1x1)"),
    )
    return next((what for where, asked, what in absent if asked and where in ("", project)), None)


def _about_input(data: Data) -> list[str]:
    """Return a note on the input normalisation, which the original's files do not hold."""
    theirs = _CENTERNET_INPUT
    if (data.color_order, data.mean, data.std) == (theirs.color_order, theirs.mean, theirs.std):
        return []
    images = f"{data.color_order.upper()} images with mean {list(data.mean)} and std {list(data.std)}"
    return [f"these weights expect {images} of values in 0..1: set them in the original code, which uses others"]
