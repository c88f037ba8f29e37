"""Names in files of mmdet's CenterNet (mmdet 3, `CTResNetNeck` and `CenterNetHead`)."""

from __future__ import annotations

from ctnet.config import CenterNetModel
from ctnet.weights.names import Pairs

HEADS: Pairs = (
    ("heads.heatmap_logits", "bbox_head.heatmap_head"),
    ("heads.size", "bbox_head.wh_head"),
    ("heads.offset", "bbox_head.offset_head"),
)


def mmdet_pairs(model: CenterNetModel) -> Pairs:
    """Return the table of a ResNet with one of mmdet's necks: deformable or ordinary convolutions."""
    pairs = [("backbone", "backbone"), *HEADS]
    for stage in range(3):
        for i, layer in enumerate((model.neck, "up")):
            theirs = f"neck.deconv_layers.{2 * stage + i}"
            pairs += [(f"neck.{stage}.{layer}", f"{theirs}.conv"), (f"neck.{stage}.{layer}_norm", f"{theirs}.bn")]
        pairs.append((f"neck.{stage}.deform.offset_mask", f"neck.deconv_layers.{2 * stage}.conv.conv_offset"))
    return pairs
