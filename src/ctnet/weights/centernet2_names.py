"""Names in files of CenterNet2 (xingyizhou/CenterNet2, detectron2) and of mmdet's one-stage form of it."""

from __future__ import annotations

from ctnet.config import CenterNet2Model
from ctnet.models.pyramid import NODES
from ctnet.models.resnet import BASIC, DEPTHS
from ctnet.weights.centernet_names import dla34_backbone_pairs
from ctnet.weights.names import Pairs

HEAD = "proposal_generator.centernet_head"


def detectron2_pairs(model: CenterNet2Model) -> Pairs:
    """Return the table of a detector of CenterNet2's own code."""
    pairs = (
        [*_resnet_pairs(model)] if model.backbone in DEPTHS else [*dla34_backbone_pairs("backbone.bottom_up.backbone")]
    )
    pairs += _bifpn_pairs(model) if model.neck == "bifpn" else _fpn_pairs(model)
    heatmap = "agn_hm" if model.roi_stages else "cls_logits"
    heads = (("box_tower", "bbox_tower"), ("class_tower", "cls_tower"), ("heatmap", heatmap), ("box", "bbox_pred"))
    pairs += [(f"head.{ours}", f"{HEAD}.{theirs}") for ours, theirs in heads]
    pairs += [(f"head.box.scales.{level}", f"{HEAD}.scales.{level}.scale") for level in range(model.levels)]
    for stage in range(model.roi_stages):
        number = f".{stage}" if model.roi_stages > 1 else ""
        pairs += [(f"roi.{stage}.{layer}", f"roi_heads.box_head{number}.{layer}") for layer in ("fc1", "fc2")]
        outputs = (("classes", "cls_score"), ("box", "bbox_pred"))
        pairs += [(f"roi.{stage}.{ours}", f"roi_heads.box_predictor{number}.{theirs}") for ours, theirs in outputs]
    return pairs


def _resnet_pairs(model: CenterNet2Model) -> Pairs:
    stem = "backbone.bottom_up.stem.conv1"
    pairs = [("backbone.conv1", stem), ("backbone.bn1", f"{stem}.norm")]
    for stage, depth in enumerate(DEPTHS[model.backbone], 1):
        for block in range(depth):
            here, there = f"backbone.layer{stage}.{block}", f"backbone.bottom_up.res{stage + 1}.{block}"
            for i in range(1, 3 if model.backbone in BASIC else 4):
                pairs += [(f"{here}.conv{i}", f"{there}.conv{i}"), (f"{here}.bn{i}", f"{there}.conv{i}.norm")]
            pairs += [(f"{here}.downsample.{i}", f"{there}.shortcut{norm}") for i, norm in enumerate(("", ".norm"))]
    return pairs


def _fpn_pairs(model: CenterNet2Model) -> Pairs:
    parts = (("lateral", "fpn_lateral"), ("output", "fpn_output"))
    pairs = [(f"neck.{ours}.{i}", f"backbone.{theirs}{3 + i}") for ours, theirs in parts for i in range(3)]
    return [*pairs, *((f"neck.extra.{i}", f"backbone.top_block.p{6 + i}") for i in range(model.levels - 3))]


def _bifpn_pairs(model: CenterNet2Model) -> Pairs:
    pairs = []
    for place in range(model.neck_repeats):
        theirs = f"backbone.repeated_bifpn.{place}"
        for number, (level, sources) in enumerate(NODES):
            here, kind = f"neck.{place}.nodes.{number}", f"f{level}_{'_'.join(map(str, sources))}"
            pairs += [(f"{here}.weights", f"{theirs}.weights_{kind}"), (f"{here}.conv", f"{theirs}.outputs_{kind}")]
            pairs.append((f"{here}.norm", f"{theirs}.outputs_{kind}.norm"))
            for source in sources:
                narrow = f"neck.{place}.narrow.{source}_{level}"
                pairs += [
                    (f"{narrow}.{i}", f"{theirs}.lateral_{source}_f{level}{n}") for i, n in enumerate(("", ".norm"))
                ]
    return pairs


def mmdet_pairs(model: CenterNet2Model) -> Pairs:
    """Return the table of mmdet's `CenterNetUpdateHead` behind its FPN (mmdet 3)."""
    pairs = [("backbone", "backbone"), ("head.heatmap", "bbox_head.conv_cls"), ("head.box", "bbox_head.conv_reg")]
    pairs += [(f"neck.lateral.{i}", f"neck.lateral_convs.{i}.conv") for i in range(3)]
    pairs += [(f"neck.output.{i}", f"neck.fpn_convs.{i}.conv") for i in range(3)]
    pairs += [(f"neck.extra.{i}", f"neck.fpn_convs.{3 + i}.conv") for i in range(model.levels - 3)]
    pairs += [(f"head.box.scales.{level}", f"bbox_head.scales.{level}.scale") for level in range(model.levels)]
    for ours, theirs in (("class_tower", "cls_convs"), ("box_tower", "reg_convs")):
        for i in range(model.head_convs):
            layers = ((3 * i, "conv"), (3 * i + 1, "gn"))
            pairs += [(f"head.{ours}.{layer}", f"bbox_head.{theirs}.{i}.{name}") for layer, name in layers]
    return pairs
