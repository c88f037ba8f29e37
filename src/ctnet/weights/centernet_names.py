"""Names in the original CenterNet's files (xingyizhou/CenterNet, `models/networks/`)."""

from __future__ import annotations

from ctnet.config import Model
from ctnet.weights.names import Pairs

HEADS: Pairs = (("heads.heatmap_logits", "hm"), ("heads.size", "wh"), ("heads.offset", "reg"))


def centernet_pairs(model: Model) -> Pairs:
    """Return the table of the architecture."""
    if model.backbone == "dla34":
        return (*HEADS, *_dla34())
    return (*HEADS, *_resnet(deform=model.neck == "deform"))


def _resnet(*, deform: bool) -> Pairs:
    """The neck is one row of layers, ReLUs included."""
    pairs = [("backbone", "")]
    layers = ("deform", "deform_norm", None, "up", "up_norm", None) if deform else ("up", "up_norm", None)
    for stage in range(3):
        for i, layer in enumerate(layers):
            if layer:
                pairs.append((f"neck.{stage}.{layer}", f"deconv_layers.{len(layers) * stage + i}"))
        if deform:
            side = f"deconv_layers.{len(layers) * stage}.conv_offset_mask"
            pairs.append((f"neck.{stage}.deform.offset_mask", side))
    return pairs


def _dla34() -> Pairs:
    pairs = [("backbone", "base")]
    for tree in ("level2", "level3.tree1", "level3.tree2", "level4.tree1", "level4.tree2", "level5"):
        pairs += [(f"backbone.{tree}.root.{i}", f"base.{tree}.root.{part}") for i, part in enumerate(("conv", "bn"))]
    rounds = [("neck.last", "ida_up", 2), *((f"neck.rounds.{i}", f"dla_up.ida_{i}", i + 1) for i in range(3))]
    for ours, theirs, count in rounds:
        for i in range(count):
            pairs.append((f"{ours}.up.{i}", f"{theirs}.up_{i + 1}"))
            for unit in ("proj", "node"):
                here, there = f"{ours}.{unit}.{i}", f"{theirs}.{unit}_{i + 1}"
                pairs += [(here, there), (f"{here}.norm", f"{there}.actf.0")]
                pairs.append((f"{here}.conv.offset_mask", f"{there}.conv.conv_offset_mask"))
    return pairs
