"""Names of MobileNetV2's tensors in files of timm and of CenterFace; torchvision's are ours."""

from __future__ import annotations

from ctnet.config import CenterNetModel
from ctnet.models.mobilenet import ROWS, TAPS
from ctnet.weights.names import Pairs


def timm_pairs() -> Pairs:
    """Return the table of timm's `mobilenetv2_100`, whose layers are named by what they do."""
    pairs = [("backbone.features.0.0", "conv_stem"), ("backbone.features.0.1", "bn1")]
    place = 1
    for row, (expansion, _, count, _) in enumerate(ROWS):
        for block in range(count):
            ours, theirs = f"backbone.features.{place}.conv", f"blocks.{row}.{block}"
            units = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
            for i, unit in enumerate(units[:-1]):
                pairs += [(f"{ours}.{i}.0", f"{theirs}.{unit}"), (f"{ours}.{i}.1", f"{theirs}.bn{i + 1}")]
            last = len(units) - 1
            pairs += [(f"{ours}.{last}", f"{theirs}.{units[-1]}"), (f"{ours}.{last + 1}", f"{theirs}.bn{len(units)}")]
            place += 1
    return pairs


def centerface_pairs(_: CenterNetModel) -> Pairs:
    """Return the table of CenterFace's network (chenjun2hao/CenterFace.pytorch, `mobilev2_10`)."""
    pairs = [("neck.top", "dla_up.conv"), ("neck.last", "dla_up.conv_last")]
    first = 0
    for name, last in zip(("feature_1", "feature_2", "feature_4", "feature_6"), TAPS, strict=True):
        pairs += [(f"backbone.features.{i}", f"base.{name}.{i - first}") for i in range(first, last + 1)]
        first = last + 1
    for step in range(3):
        pairs += [
            (f"neck.steps.{step}.up", f"dla_up.up_{step}.up"),
            (f"neck.steps.{step}.lateral", f"dla_up.up_{step}.conv"),
        ]
    heads = (("heatmap_logits", "hm.0"), ("log_size", "wh"), ("offset", "hm_offset"), ("landmarks", "landmarks"))
    return (*pairs, *((f"heads.{ours}", theirs) for ours, theirs in heads))
