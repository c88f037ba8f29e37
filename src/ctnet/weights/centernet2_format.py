"""Checkpoints of CenterNet2's own code and of mmdet's one-stage form of it: what network their tensors belong to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ctnet.config import CenterNet2Model, Model
from ctnet.models.resnet import BASIC, DEPTHS
from ctnet.weights.centernet2_names import HEAD

Structure = dict[str, Any]
Shape = Callable[[str], torch.Size | None]
"""shape of the tensor that has a name of ours, None without it"""

_ONE_STAGE = {"roi_stages": 0, "score_floor": 0.05, "proposal_nms": 0.6}


def detectron2(names: Collection[str]) -> Structure | None:
    """Return the settings of a detector of CenterNet2's code, None for other files and networks that ctnet lacks."""
    one_stage = f"{HEAD}.cls_logits.weight" in names
    if f"{HEAD}.bbox_pred.weight" not in names or one_stage == (f"{HEAD}.agn_hm.weight" in names):
        return None
    stages = _highest(names, r"roi_heads\.box_predictor\.(\d+)\.cls_score\.weight")
    stages = stages or int("roi_heads.box_predictor.cls_score.weight" in names)
    found: Structure = {"family": "centernet2", "levels": _highest(names, rf"{HEAD}\.scales\.(\d+)\.scale")}
    found |= _ONE_STAGE if one_stage else {"roi_stages": stages}
    tower = rf"{HEAD}\.bbox_tower\.(\d+)\.weight"
    found |= {"head_convs": (_highest(names, tower) + 1) // 3, "head_bias": f"{HEAD}.bbox_tower.0.bias" in names}
    if stages == 0 and not one_stage:
        return None
    resnet = _resnet(names, "backbone.bottom_up.res", first=2)
    if resnet is not None and "backbone.fpn_lateral3.weight" in names:
        frozen = "backbone.bottom_up.res3.0.conv1.norm.num_batches_tracked" not in names
        return found | resnet | {"frozen_norms": frozen, "frozen_stages": 2}
    rounds = _highest(names, r"backbone\.repeated_bifpn\.(\d+)\.weights_f2_2_5")
    if rounds and "backbone.bottom_up.backbone.base_layer.0.weight" in names:
        proposals = {} if one_stage else {"proposals": 128}
        return found | {"backbone": "dla34", "neck": "bifpn", "neck_repeats": rounds} | proposals
    return None


def mmdet(names: Collection[str]) -> Structure | None:
    """Return the settings of a detector with mmdet's `CenterNetUpdateHead`; its config says where strides are."""
    if not {"bbox_head.conv_cls.weight", "bbox_head.scales.0.scale", "neck.fpn_convs.0.conv.weight"} <= set(names):
        return None
    found = _resnet(names, "backbone.layer", first=1)
    if found is None:
        return None
    frozen = {"frozen_norms": True, "frozen_stages": 2} if found["backbone"] not in BASIC else {}
    return (
        found
        | _ONE_STAGE
        | frozen
        | {
            "family": "centernet2",
            "levels": _highest(names, r"bbox_head\.scales\.(\d+)\.scale"),
            "head_convs": _highest(names, r"bbox_head\.reg_convs\.(\d+)\.conv\.weight"),
            "head_bias": "bbox_head.reg_convs.0.conv.bias" in names,
        }
    )


def widths(model: Model, shape: Shape) -> tuple[Structure, int | None, str]:
    """Return settings read off shapes, the number of classes, None without it, and the tensor that tells it."""
    assert isinstance(model, CenterNet2Model)
    teller = "roi.0.classes.weight" if model.roi_stages else "head.heatmap.weight"
    outputs, tower, hidden = shape(teller), shape("head.box.weight"), shape("roi.0.fc1.weight")
    found: Structure = {} if tower is None else {"neck_channels": tower[1]}
    if tower is not None and hidden is not None:
        found |= {"roi_channels": hidden[0], "roi_size": math.isqrt(hidden[1] // tower[1])}
    return found, None if outputs is None else outputs[0] - bool(model.roi_stages), teller


def by_config(model: Model, meta: Mapping[str, Any]) -> tuple[Structure, str, list[str]]:
    """Return what mmdet's config in a file says of its bottlenecks, the recipe that it suits, and notes."""
    about = meta.get("meta")
    text = (
        str(next((about[key] for key in ("cfg", "config") if key in about), "")) if isinstance(about, Mapping) else ""
    )
    style = re.search(r"style\s*=\s*['\"](\w+)", text)
    if model.backbone in BASIC:
        return {}, "centernet_fpn_r50_rgb", []
    if style is None:
        note = "the file holds no config of mmdet: its strides and colours are taken to be those of style='caffe'"
        return {"stride_in_1x1": True}, "centernet_fpn_r50", [note]
    caffe = style[1] == "caffe"
    return {"stride_in_1x1": caffe}, "centernet_fpn_r50" if caffe else "centernet_fpn_r50_rgb", []


def recipe(model: Model, classes: int) -> str:
    """Return the recipe whose images and tests suit a detector of CenterNet2's code."""
    assert isinstance(model, CenterNet2Model)
    if model.neck == "bifpn":
        return "centernet2_dla34_bifpn"
    return "centernet2_r50" if model.roi_stages else "centernet_fpn_r50"


def _resnet(names: Collection[str], prefix: str, first: int) -> Structure | None:
    """Return the ResNet whose blocks begin with the prefix and a number from `first` on."""
    depths = tuple(
        _highest(names, rf"{re.escape(prefix)}{first + stage}\.(\d+)\.conv1\.weight") for stage in range(4)
    )  # fmt: skip
    bottleneck = f"{prefix}{first}.0.conv3.weight" in names
    for name, known in DEPTHS.items():
        if depths == known and bottleneck == (name not in BASIC):
            return {"backbone": name} | ({"stride_in_1x1": True} if bottleneck else {})
    return None


def _highest(names: Collection[str], pattern: str) -> int:
    """Return the number after the highest that the pattern finds, 0 where it finds none."""
    found = [int(match[1]) + 1 for match in map(re.compile(pattern).fullmatch, names) if match]
    return max(found, default=0)
