"""The checkpoint formats that ctnet reads: tensor names, and the network that follows from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from ctnet.config import CenterNetModel, PoseModel
from ctnet.models.resnet import BASIC, DEPTHS
from ctnet.weights.centernet_names import dla34_backbone_pairs
from ctnet.weights.mobilenet_names import timm_pairs
from ctnet.weights.names import Pairs, detector_pairs

Structure = dict[str, Any]  # fields of a recipe's `model` section
Rules = tuple[tuple[str, str], ...]  # (regular expression, replacement or reason)


@dataclass(frozen=True)
class Format:
    """One project's way to name tensors.

    `spellings` rewrite a file's names into the one spelling that `pairs` knows; `structure` says which network the
    names belong to, None if they are not of this format; `left_out` are names that a file of this format may hold
    and no network needs, each with the reason; `adapt` changes tensors, under our names, that mean something else
    there. `class_name` is that of its detectors of one class. Formats without `recipe` are backbones alone; a recipe is
    chosen by network and number of classes and says how images enter; `input_settings` are those of backbones.
    `frozen_norms`: norms may lack statistics, being scale and shift alone.
    """

    name: str
    title: str
    structure: Callable[[Collection[str]], Structure | None]
    pairs: Callable[[CenterNetModel], Pairs]
    spellings: Rules = ()
    left_out: Rules = ()
    recipe: Callable[[CenterNetModel, int], str] | None = None
    frozen_norms: bool = False
    input_settings: tuple[str, ...] = ()
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    class_name: Callable[[CenterNetModel], str | None] = lambda model: None
    info: Mapping[str, str] = field(default_factory=dict)
    """what weights of this format say about themselves ever after"""

    def spell(self, name: str) -> str:
        """Return a file's name in the spelling of `pairs`."""
        for pattern, replacement in (*WRAPPERS, *self.spellings):
            name = re.sub(pattern, replacement, name)
        return name

    def reason_to_leave_out(self, name: str) -> str | None:
        """Return why no network needs this tensor, None for one that has to fit."""
        rules = (*self.left_out, (r"^n_averaged$", "counter of an averaged model"))
        return next((reason for pattern, reason in rules if re.search(pattern, name)), None)


WRAPPERS: Rules = (
    (r"(?:(?<=\.)|^)_(?:orig_mod|forward_module|fsdp_wrapped_module|checkpoint_wrapped_module)\.", ""),
    (r"^((module|model)\.)+", ""),  # DataParallel, Lightning, averaged models
)
"""what a wrapper of one's own network puts into its names"""
PREFERRED = ("teacher", "ema", "encoder_q", "online")
"""of several networks of one kind in a file, those whose prefix holds such a word come first"""
_FIRST_TENSOR = re.compile(
    r"(.+\.)(?:layer1\.0\.conv1|res2\.0\.conv1|base_layer\.0|features\.0\.0|conv_stem|pre\.0\.conv"
    r"|base\.feature_1\.0\.0)\.weight"
)
"""a tensor that every network here has one of, behind whatever a network around it puts before its names"""
_MOST_PREFIXES = 8
IMAGENET_HEAD = "ImageNet classifier"
IMAGENET_INPUT = ("data.color_order=rgb", "data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]")


def _resnet(names: Collection[str], backbone: str) -> Structure | None:
    """Return the ResNet whose blocks these are, in torchvision's layout below the prefix `backbone`."""
    pattern = re.compile(re.escape(backbone) + r"layer([1-4])\.(\d+)\.conv1\.weight")
    blocks = [0, 0, 0, 0]
    for match in filter(None, map(pattern.fullmatch, names)):
        blocks[int(match[1]) - 1] = max(blocks[int(match[1]) - 1], int(match[2]) + 1)
    bottleneck = f"{backbone}layer1.0.conv3.weight" in names
    for name, depths in DEPTHS.items():
        if tuple(blocks) == depths and bottleneck == (name not in BASIC):
            return {"backbone": name}
    return None


def _centernet(names: Collection[str]) -> Structure | None:
    structure = _centernet_network(names)
    posed = structure is not None and any(name.startswith("hps.") for name in names)
    return {"family": "pose", **structure} if posed and structure is not None else structure


def _centernet_network(names: Collection[str]) -> Structure | None:
    if "pre.0.conv.weight" in names:
        return {"backbone": "hourglass104"}
    if "dla_up.ida_0.up_1.weight" in names:
        deform = "dla_up.ida_0.proj_1.conv.conv_offset_mask.weight" in names
        return {"backbone": "dla34", "neck": "deform" if deform else "plain"}
    backbone = _resnet(names, "") if "deconv_layers.0.weight" in names else None
    if backbone is None:
        return None
    if "deconv_layers.0.conv_offset_mask.weight" not in names:
        return backbone | {"neck": "plain"}
    return backbone | {"neck": "deform", "deform_bias": "deconv_layers.0.bias" in names}


def _mmdet(names: Collection[str]) -> Structure | None:
    first = "neck.deconv_layers.0.conv"
    backbone = _resnet(names, "backbone.") if f"{first}.weight" in names else None
    if backbone is None:
        return None
    neck = "deform" if f"{first}.conv_offset.weight" in names else "conv"
    return backbone | {"neck": neck, "deform_bias": f"{first}.bias" in names, "heatmap_bias": -2.197}


def _torchvision(names: Collection[str]) -> Structure | None:
    return _resnet(names, "") if "deconv_layers.0.weight" not in names else None


def _dla(names: Collection[str]) -> Structure | None:
    return {"backbone": "dla34"} if {"base_layer.0.weight", "level5.root.conv.weight"} <= set(names) else None


def _mobilenet(marker: str) -> Callable[[Collection[str]], Structure | None]:
    return lambda names: {"backbone": "mobilenetv2"} if marker in names else None


def _centerface(names: Collection[str]) -> Structure | None:
    if "base.feature_6.3.conv.3.weight" not in names:
        return None
    return {"family": "centerface", "landmark_origin": "center"}


def _sizes_in_cells(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with logarithms of sizes in cells, where CenterFace has those of four cells."""
    bias = tensors.get("heads.log_size.bias")
    return tensors if bias is None else {**tensors, "heads.log_size.bias": bias + math.log(4)}


def _detectron2(names: Collection[str]) -> Structure | None:
    renamed = {re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name) for name in names}
    backbone = _resnet(renamed, "")
    return None if backbone is None else backbone | {"stride_in_1x1": True}


def _detectron2_pairs(_: CenterNetModel) -> Pairs:
    return (*((f"backbone.layer{stage - 1}", f"res{stage}") for stage in (2, 3, 4, 5)), ("backbone", ""))


_D2_MODULES: Rules = (
    (r"^(backbone\.)?bottom_up\.", ""),
    (r"^stem\.", ""),
    (r"\bconv(\d)\.norm\.", r"bn\1."),
    (r"\bshortcut\.norm\.", "downsample.1."),
    (r"\bshortcut\.", "downsample.0."),
)
_CAFFE2_BLOBS: Rules = (
    (r"^res_conv1_bn_", "conv1_bn_"),
    (r"_bn_s$", ".norm.weight"),
    (r"_bn_b(eta)?$", ".norm.bias"),
    (r"_bn_rm$", ".norm.running_mean"),
    (r"_bn_riv$", ".norm.running_var"),
    (r"_w$", ".weight"),
    (r"_b$", ".bias"),
    (r"^res(\d)_(\d+)_branch1\b", r"res\1.\2.shortcut"),
    (r"^res(\d)_(\d+)_branch2a\b", r"res\1.\2.conv1"),
    (r"^res(\d)_(\d+)_branch2b\b", r"res\1.\2.conv2"),
    (r"^res(\d)_(\d+)_branch2c\b", r"res\1.\2.conv3"),
)


def _centernet_recipe(model: CenterNetModel, classes: int) -> str:
    if isinstance(model, PoseModel):
        return "pose_dla34_coco_3x"
    return "centernet_resdcn18_voc" if classes == 20 else "centernet_resdcn18_coco"


FORMATS = (
    Format(
        "centernet",
        "CenterNet (xingyizhou)",
        _centernet,
        partial(detector_pairs, "centernet"),
        left_out=(
            (r"^base\.fc\.", IMAGENET_HEAD),
            (r"^base\.level[34]\.project\.", "unused in the original network"),
        ),
        recipe=_centernet_recipe,
        class_name=lambda model: "person" if isinstance(model, PoseModel) else None,
    ),
    Format(
        "mmdet",
        "CenterNet of mmdet",
        _mmdet,
        partial(detector_pairs, "mmdet"),
        # before mmcv's second version of the operator, files keep the offset convolution beside the layer
        spellings=((r"\.conv_offset\.(?=(weight|bias)$)(?<!\.conv\.conv_offset\.)", ".conv.conv_offset."),),
        left_out=((r"^ema_", "running average beside the weights, which already are it"),),
        recipe=lambda model, classes: "centernet_resdcn18_mmdet",
    ),
    Format(
        "mindspore",
        "CenterNet of MindSpore",
        _centernet,
        partial(detector_pairs, "centernet"),
        spellings=(
            (r"^network\.", ""),
            (r"^backbone\.", ""),
            (r"\.conv_offset\.", ".conv_offset_mask."),
            (r"^(hm|wh|reg)_fn\.", r"\1."),
            (r"\.moving_mean$", ".running_mean"),
            (r"\.moving_variance$", ".running_var"),
            (r"\.gamma$", ".weight"),
            (r"\.beta$", ".bias"),
        ),
        left_out=(
            (r"^(moment[12]?|moments|accum|stat|v|m)\.", "optimizer state"),
            (r"^(global_step|learning_rate|beta[12]_power|momentum|epoch_num|step_num|scale_sense|.*loss_scale.*)$",
             "state of the training"),
        ),
        recipe=lambda model, classes: "centernet_resdcn18_mindspore",
    ),
    Format(
        "torchvision",
        "ImageNet ResNet of torchvision or timm",
        _torchvision,
        lambda model: (("backbone", ""),),
        left_out=((r"^fc\.", IMAGENET_HEAD),),
        input_settings=IMAGENET_INPUT,
    ),
    Format(
        "dla",
        "ImageNet DLA-34 of its authors or timm",
        _dla,
        lambda model: dla34_backbone_pairs(""),
        left_out=((r"^fc\.", IMAGENET_HEAD), (r"^level[34]\.project\.", "unused in the original network")),
        input_settings=IMAGENET_INPUT,
    ),
    Format(
        "torchvision-mobilenet",
        "ImageNet MobileNetV2 of torchvision",
        _mobilenet("features.17.conv.3.weight"),
        lambda model: (("backbone", ""),),
        left_out=((r"^(features\.18|classifier)\.", IMAGENET_HEAD),),
        input_settings=IMAGENET_INPUT,
    ),
    Format(
        "timm-mobilenet",
        "ImageNet MobileNetV2 of timm",
        _mobilenet("blocks.6.0.conv_pwl.weight"),
        lambda model: timm_pairs(),
        left_out=((r"^(conv_head|bn2|classifier)\.", IMAGENET_HEAD),),
        input_settings=IMAGENET_INPUT,
    ),
    Format(
        "centerface",
        "CenterFace (chenjun2hao)",
        _centerface,
        partial(detector_pairs, "centerface"),
        recipe=lambda model, classes: "centerface_mobilenetv2_wider",
        adapt=_sizes_in_cells,
        class_name=lambda model: "face",
    ),
    Format(
        "detectron2",
        "ResNet of detectron2",
        _detectron2,
        _detectron2_pairs,
        spellings=(*_CAFFE2_BLOBS, *_D2_MODULES),
        left_out=(
            (r"^(fc1000|fc|linear|pred)\b", IMAGENET_HEAD),
            (r"_momentum$", "optimizer state"),
            (r"^(pixel_mean|pixel_std)$", "a constant of the input"),
            (r"^(backbone\.|fpn_|top_block|proposal_generator\.|roi_heads\.)", "not the backbone"),
        ),
        frozen_norms=True,
        input_settings=(
            "data.color_order=bgr",
            "data.mean=[0.406,0.456,0.485]",
            "data.std=[0.00392157,0.00392157,0.00392157]",
        ),
    ),
)  # fmt: skip


def identify(names: Collection[str]) -> tuple[Format, Structure, str] | None:
    """Return the format whose names these are, the network they belong to, and the prefix in front of its names.

    Without a prefix all names are the network's; with one (`backbone.body.`, `module.encoder_q.`) those that have it.
    Returns None when no format knows them.
    """
    found = dict.fromkeys(match[1] for match in map(_FIRST_TENSOR.fullmatch, names) if match)
    prefixes = sorted(found, key=lambda prefix: not any(word in prefix for word in PREFERRED))
    for prefix in ("", *prefixes[:_MOST_PREFIXES]):
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        for candidate in FORMATS:
            structure = candidate.structure({candidate.spell(name) for name in inside})
            if structure is not None:
                return candidate, structure, prefix
    return None
