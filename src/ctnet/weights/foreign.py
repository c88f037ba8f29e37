"""Other projects' checkpoints in ctnet's names, with the recipe that their images need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.config import DEFAULT, CenterNetModel, WeightsMetadata, changed, load_recipe, settings_of
from ctnet.errors import WeightsError
from ctnet.families import assumed_keypoints, build_network
from ctnet.families.heads import HEADS
from ctnet.files import path_component
from ctnet.types import FACE, KeypointSchema
from ctnet.weights.centerface_onnx import CENTERFACE_ONNX, NORMS_RESTORED, centerface_tensors
from ctnet.weights.class_names import categories_of
from ctnet.weights.containers import Container
from ctnet.weights.ctnet_file import CTNET, Weights, read_own
from ctnet.weights.formats import Format, identify
from ctnet.weights.names import foreign_names

# Recognised, so that the message can say what a file is; their networks are not built here.
OTHER_NETWORKS = (
    ("bbox_head.cls_logits.weight", "CenterNet-update of mmdet"),
    ("proposal_generator.centernet_head.agn_hm.weight", "CenterNet2 of detectron2"),
    ("proposal_generator.centernet_head.cls_logits.weight", "one-stage CenterNet of detectron2"),
    ("conv_stem.weight", "ImageNet network of timm"),
    ("embedder.embedder.convolution.weight", "ResNet in the names of Hugging Face transformers"),
    ("network.backbone.feature_1.0.0.weight", "CenterFace of MindSpore"),
)

# Statistics that make a norm of eps 1e-5 nothing but scale and shift.
FROZEN_STATISTICS = {"running_mean": 0.0, "running_var": 1 - 1e-5}


@dataclass(frozen=True)
class Reading:
    """A foreign file in our names.

    `tensors` hold what the network asks for, under our names, and what it does not know, under the file's;
    `file_names` lead from ours to the file's. `left_out` are (name, reason) of tensors that are not used.
    """

    container: Container
    format: Format
    model: CenterNetModel
    num_classes: int | None  # None for a backbone alone
    tensors: Mapping[str, Tensor]
    file_names: Mapping[str, str]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    keypoints: KeypointSchema | None = None


def read_foreign(container: Container, source: object, *, backbone_only: bool = False) -> Reading:
    """Return the file's tensors in our names. Raises WeightsError when no format knows them.

    With `backbone_only` the network is its backbone, whatever else the file holds.
    """
    if container.kind == "onnx":
        return _read_onnx(container, source)
    found = identify(container.tensors)
    if found is None:
        raise _unknown(container, source)
    format, structure, prefix = found
    inside = {name.removeprefix(prefix): t for name, t in container.tensors.items() if name.startswith(prefix)}
    spelled = _spell(inside, format, source)
    if backbone_only or format.recipe is None:
        model, num_classes, keypoints = model_of(structure), None, assumed_keypoints(model_of(structure))
    else:
        shapes = {name: t.shape for name, t in spelled.items()}
        model, num_classes, keypoints = _with_widths(format, structure, shapes, source)
    left_out = [(name, reason) for name in spelled if (reason := format.reason_to_leave_out(name))]
    for name, _ in left_out:
        del spelled[name]
    left_out += [(name, f"outside of {prefix}") for name in container.tensors if not name.startswith(prefix)]
    wanted = _wanted_names(model, num_classes, keypoints)
    names = foreign_names(wanted, format.pairs(model))
    known = {ours: spelled.pop(theirs) for ours, theirs in names.items() if theirs in spelled}
    if num_classes is None:  # a backbone may come with any network around it
        left_out += [(name, "not the backbone") for name in spelled]
        spelled = {}
    tensors, notes = _complete(format.adapt(known), wanted, frozen_norms=format.frozen_norms)
    names = {ours: f"{prefix}{theirs}" for ours, theirs in names.items()}
    tensors |= spelled
    return Reading(container, format, model, num_classes, tensors, names, tuple(left_out), tuple(notes), keypoints)


def _read_onnx(container: Container, source: object) -> Reading:
    """Return CenterFace's network in an ONNX file."""
    model, tensors, names = centerface_tensors(container, source)
    return Reading(container, CENTERFACE_ONNX, model, 1, tensors, names, (), (NORMS_RESTORED,), FACE)


def foreign_weights(reading: Reading, source: object) -> Weights:
    """Return what `read_foreign` found as weights of a detector. Raises WeightsError for a backbone alone."""
    if reading.format.recipe is None or reading.num_classes is None:
        raise WeightsError(
            "the file holds a backbone, not a detector",
            file=source,
            got=reading.format.title,
            hint="train a detector with it: ctnet train CONFIG --backbone-weights FILE",
        )
    meta = reading.container.meta
    if isinstance(about := meta.get(CTNET), Mapping):  # written by `ctnet weights convert`
        own = read_own(WeightsMetadata, about, None, source)
        recipe, categories, keypoints = own.recipe, own.categories, own.keypoints
    else:
        recipe = load_recipe(reading.format.recipe(reading.model, reading.num_classes)).recipe
        recipe = changed(recipe, {"name": _recipe_name(source, recipe.name)})
        name = reading.format.class_name(reading.model)
        names = _class_names(meta) or ([name] if name and reading.num_classes == 1 else None)
        categories, keypoints = categories_of(reading.num_classes, names), reading.keypoints
    info = {"format": reading.format.name, **reading.format.info}
    info |= {key: meta[key] for key in ("epoch",) if isinstance(meta.get(key), int)}
    recipe = changed(recipe, {"model": reading.model})
    return Weights(
        reading.tensors, recipe, categories, info, reading.file_names, reading.notes, keypoints
    )  # fmt: skip


def _recipe_name(source: object, otherwise: str) -> str:
    """Return the file's name without suffix, if a recipe can have it."""
    try:
        return path_component(Path(str(source)).stem)
    except ValueError:
        return otherwise


def _spell(named: Mapping[str, Tensor], format: Format, source: object) -> dict[str, Tensor]:
    spelled = {format.spell(name): tensor for name, tensor in named.items()}
    if len(spelled) < len(named):
        twice = [name for name, n in Counter(map(format.spell, named)).items() if n > 1]
        raise WeightsError("tensors are in the file twice", file=source, got=_some(twice))
    return spelled


def _with_widths(
    format: Format, structure: Mapping[str, Any], shapes: Mapping[str, torch.Size], source: object
) -> tuple[CenterNetModel, int, KeypointSchema | None]:
    """Return the `model` section, widths read off the tensors, the number of classes, and the key points."""
    model = model_of(structure)
    pairs = format.pairs(model)

    def shape(name: str) -> torch.Size | None:
        try:
            return shapes.get(foreign_names([name], pairs)[name])
        except KeyError:  # the project has no layer for it
            return None

    heads = "heads.0" if model.backbone == "hourglass104" else "heads"  # every stack has its own

    def out_channels(head: str) -> int | None:
        last = shape(f"{heads}.{head}.2.weight") or shape(f"{heads}.{head}.weight")
        return None if last is None else last[0]

    rows = [HEADS[name] for name in model.head_names]
    channels = {row.name: count for row in rows if (count := out_channels(row.output)) is not None}
    missing = next((row.output for row in rows if row.role in ("heatmap", "size") and row.name not in channels), None)
    if missing:
        wanted = foreign_names([f"{heads}.{missing}.2.weight"], pairs).popitem()[1]
        raise WeightsError(
            "half a checkpoint: a head is missing",
            file=source,
            format=format.title,
            expected=wanted,
            hint="--backbone-weights takes its backbone",
        )
    hidden = shape(f"{heads}.heatmap_logits.0.weight")
    num_classes = channels["heatmap"]
    fields: dict[str, Any] = {
        "head_channels": 0 if hidden is None else hidden[0],
        "class_specific_size": num_classes > 1 and channels.get("size") == 2 * num_classes,
        "predict_offset": "offset" in channels,
    }
    if not {row.name for row in rows} - {"offset"} <= set(channels):
        fields |= {"heads": tuple(channels), "predict_offset": True}
    lateral = shape("neck.top.0.weight")
    if lateral is not None:
        fields["neck_channels"] = (*model.neck_channels[:2], lateral[0])
    stages = [shape(f"neck.{stage}.up.weight") for stage in range(3)] if model.backbone.startswith("resnet") else []
    if stages and None not in stages:
        fields["neck_channels"] = tuple(stage[1] for stage in stages if stage)
    points = next((channels[row.name] // 2 for row in rows if row.role == "keypoints" and row.name in channels), 0)
    return model_of({**structure, **fields}), num_classes, _keypoints(model, points)


def model_of(structure: Mapping[str, Any]) -> CenterNetModel:
    """Return the `model` section, of the family that it names."""
    model = settings_of(structure.get("family", DEFAULT)).model(**structure)
    assert isinstance(model, CenterNetModel)
    return model


def _keypoints(model: CenterNetModel, count: int) -> KeypointSchema | None:
    """Return the key points of a file, which holds their number alone: those usual for the family where it agrees."""
    usual = assumed_keypoints(model)
    if usual is None or count in (0, len(usual.names)):
        return usual if count else None
    return KeypointSchema(tuple(f"point {number}" for number in range(1, count + 1)))


def _wanted_names(
    model: CenterNetModel, num_classes: int | None, keypoints: KeypointSchema | None
) -> dict[str, torch.dtype]:
    with torch.device("meta"):
        own = build_network(model, num_classes or 1, keypoints).state_dict()
    return {name: t.dtype for name, t in own.items() if num_classes is not None or name.startswith("backbone.")}


def _complete(
    found: dict[str, Tensor], wanted: Mapping[str, torch.dtype], *, frozen_norms: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors in the types that the network has, with what the format never stores, and notes on both."""
    notes = []
    cast = sorted({str(t.dtype).removeprefix("torch.") for name, t in found.items() if t.dtype != wanted[name]})
    found = {name: tensor.to(wanted[name]) for name, tensor in found.items()}
    if cast:
        notes.append(f"{', '.join(cast)} became float32")
    absent = [name for name in wanted if name not in found]
    counters = [name for name in absent if name.endswith("num_batches_tracked")]
    found |= {name: torch.zeros((), dtype=torch.int64) for name in counters}
    if frozen_norms:
        for name in absent:
            module, _, buffer = name.rpartition(".")
            if buffer in FROZEN_STATISTICS and f"{module}.weight" in found:
                found[name] = torch.full_like(found[f"{module}.weight"], FROZEN_STATISTICS[buffer])
    return found, notes


def _class_names(meta: Mapping[str, Any]) -> list[str] | None:
    """Return the class names that mmdet stores: `CLASSES` up to version 2, `dataset_meta.classes` since."""
    about = meta.get("meta")
    if not isinstance(about, Mapping):
        return None
    data = about.get("dataset_meta")
    names = data.get("classes") if isinstance(data, Mapping) else about.get("CLASSES")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else None


def _unknown(container: Container, source: object) -> WeightsError:
    names = list(container.tensors)
    title = next((title for marker, title in OTHER_NETWORKS if any(n.endswith(marker) for n in names)), None)
    if title:
        return WeightsError(
            "this version has no such network", file=source, got=title, hint="ctnet config list shows what there is"
        )
    return WeightsError(
        "no known network has these tensors",
        file=source,
        got=f"{len(names)} tensors: {_some(names)}",
        expected="weights of ctnet, CenterNet, mmdet or MindSpore, or a backbone of torchvision, timm or detectron2",
    )


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")


def with_config(weights: Weights, config: str) -> Weights:
    """Return the weights with the images, decoding and test settings of another recipe.

    Raises ConfigError for an unknown one.
    """
    other = load_recipe(config).recipe
    model = weights.recipe.model
    theirs, ours = ((each.family, each.backbone) for each in (other.model, model))
    if theirs != ours:
        expected, got = " ".join(ours), " ".join(theirs)
        raise WeightsError("the recipe is for another network", config=config, expected=expected, got=got)
    of_recipe = {key: getattr(other.model, key) for key in ("stride_in_1x1", "landmark_origin") if hasattr(model, key)}
    return replace(weights, recipe=changed(other, {"model": changed(model, of_recipe)}))
