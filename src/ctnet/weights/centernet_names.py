"""Names in the original CenterNet's files (xingyizhou/CenterNet, `models/networks/`)."""

from __future__ import annotations

from ctnet.config import CenterNetModel
from ctnet.models.hourglass import DEPTHS, STACKS
from ctnet.weights.names import Pairs

HEAD_NAMES = (
    ("heatmap_logits", "hm"),
    ("size", "wh"),
    ("offset", "reg"),
    ("keypoints", "hps"),
    ("keypoint_logits", "hm_hp"),
    ("keypoint_offset", "hp_offset"),
)
HEADS: Pairs = tuple((f"heads.{ours}", theirs) for ours, theirs in HEAD_NAMES)


def resnet_pairs(model: CenterNetModel) -> Pairs:
    """Return the table of a ResNet detector, whose neck is one row of layers, ReLUs included."""
    neck = model.neck
    pairs = [*HEADS, ("backbone", "")]
    before = () if neck == "plain" else (neck, f"{neck}_norm", None)
    layers = (*before, "up", "up_norm", None)
    for stage in range(3):
        for i, layer in enumerate(layers):
            if layer:
                pairs.append((f"neck.{stage}.{layer}", f"deconv_layers.{len(layers) * stage + i}"))
        side = f"deconv_layers.{len(layers) * stage}.conv_offset_mask"
        pairs.append((f"neck.{stage}.deform.offset_mask", side))
    return pairs


def dla34_backbone_pairs(prefix: str) -> Pairs:
    """Return the table of the backbone alone, whose names in the file begin with `prefix`, which may be empty."""
    pairs = [("backbone", prefix)]
    for tree in ("level2", "level3.tree1", "level3.tree2", "level4.tree1", "level4.tree2", "level5"):
        for i, part in enumerate(("conv", "bn")):
            pairs.append((f"backbone.{tree}.root.{i}", f"{prefix}.{tree}.root.{part}".lstrip(".")))
    return pairs


def dla34_pairs(_: CenterNetModel) -> Pairs:
    """Return the table of a DLA-34 detector; a unit of a plain neck is a row of layers, numbered here and there."""
    pairs = [*HEADS, *dla34_backbone_pairs("base")]
    rounds = [("neck.last", "ida_up", 2), *((f"neck.rounds.{i}", f"dla_up.ida_{i}", i + 1) for i in range(3))]
    for ours, theirs, count in rounds:
        for i in range(count):
            pairs.append((f"{ours}.up.{i}", f"{theirs}.up_{i + 1}"))
            for unit in ("proj", "node"):
                here, there = f"{ours}.{unit}.{i}", f"{theirs}.{unit}_{i + 1}"
                pairs += [(here, there), (f"{here}.norm", f"{there}.actf.0")]
                pairs.append((f"{here}.conv.offset_mask", f"{there}.conv.conv_offset_mask"))
    return pairs


def hourglass_pairs(_: CenterNetModel) -> Pairs:
    """Return the table of an Hourglass-104 detector."""
    pairs = [("backbone.stem", "pre"), ("backbone.stem.0.0", "pre.0.conv"), ("backbone.stem.0.1", "pre.0.bn")]
    pairs.append(("backbone.stem.1.downsample", "pre.1.skip"))
    for stack in range(STACKS):
        ours, theirs = f"backbone.stacks.{stack}", f"kps.{stack}"
        for depth in DEPTHS[:-1]:
            parts = (("beside", "up1"), ("down", "low1"), ("inner", "low2"), ("up", "low3"))
            pairs += [(f"{ours}.{here}", f"{theirs}.{there}") for here, there in parts]
            pairs.append((f"{ours}.down.0.downsample", f"{theirs}.low1.0.skip"))
            pairs.append((f"{ours}.up.{depth - 1}.downsample", f"{theirs}.low3.{depth - 1}.skip"))
            ours, theirs = f"{ours}.inner", f"{theirs}.low2"
        pairs += [(f"backbone.outputs.{stack}.{i}", f"cnvs.{stack}.{part}") for i, part in enumerate(("conv", "bn"))]
        for here, there in HEAD_NAMES:
            pairs.append((f"heads.{stack}.{here}.0", f"{there}.{stack}.0.conv"))
            pairs.append((f"heads.{stack}.{here}.2", f"{there}.{stack}.1"))
    for link in range(STACKS - 1):
        joints = (("of_input", "inters_"), ("of_output", "cnvs_"), ("block", "inters"))
        pairs += [(f"backbone.links.{link}.{here}", f"{there}.{link}") for here, there in joints]
    return pairs
