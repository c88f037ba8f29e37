"""CenterNet2's published detectors with the weights that the golden numbers are of, and the golden numbers."""

import json
import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ctnet.config import Recipe
from ctnet.families import family_of
from ctnet.weights.names import detector_pairs, foreign_names

R50 = {"backbone": "resnet50", "stride_in_1x1": True, "frozen_norms": True, "frozen_stages": 2}
ONE_STAGE = {"roi_stages": 0, "score_floor": 0.05, "proposal_nms": 0.6}
DLA = {
    "backbone": "dla34", "neck": "bifpn", "neck_channels": 160, "levels": 3, "proposals": 128,
}  # fmt: skip
MODELS = {
    "CenterNet2_R50_1x": (R50, {}),
    "CenterNet2-F_R50_1x": ({**R50, "roi_stages": 1}, {}),
    "CenterNet-FPN_R50_1x": (
        {**R50, **ONE_STAGE}, {"center": 1, "background": 1, "box": 2, "ignore_above": 1, "more_centers": True},
    ),
    "CenterNet2_DLA-BiFPN-P3_4x": (DLA, {}),
}  # fmt: skip
MEAN, STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)


def recipe_of(name, evaluation=None, **model) -> Recipe:
    """Return the recipe of a published detector, with changes of its `evaluation` and `model` sections."""
    published, loss = MODELS[name]
    model = {"family": "centernet2", **published, **model}
    return Recipe(model=model, loss=loss, evaluation={"score_floor": 0.05, **(evaluation or {})})


def make_tensor(key, shape):
    """Return what `recipe.md` of the golden numbers draws for a tensor of this name."""
    tail = key.rpartition(".")[2]
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    if tail == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if tail == "weight" and len(shape) > 1:
        out = rng.standard_normal(shape) * math.sqrt(2.0 / math.prod(shape[1:]))
    elif tail in ("bias", "running_mean"):
        out = 0.1 * rng.standard_normal(shape)
    else:
        out = rng.uniform(0.5, 1.5, shape)
    gains = (
        (key.endswith("bottom_up.stem.conv1.weight"), 1 / 64), (key.endswith(".conv3.norm.weight"), 0.25),
        (".fpn_lateral" in key and tail == "weight", 0.15), (key.endswith("centernet_head.agn_hm.weight"), 3.0),
        (key.startswith("roi_heads.") and key.endswith("bbox_pred.weight"), 0.2),
    )  # fmt: skip
    for applies, gain in gains:
        out = out * gain if applies else out
    shifts = {"bbox_pred": 4.0, "agn_hm": -2.0, "cls_logits": -4.0}
    for layer, shift in shifts.items():
        out = out + shift if key.endswith(f"centernet_head.{layer}.bias") else out
    return out.astype(np.float32)


def original_names(family, network):
    """Return the original's name of each tensor; ours alone are the counters of norms."""
    return foreign_names(network.state_dict(), detector_pairs("detectron2", family.model))


@cache
def original(name):
    """Return family, network and names of one of the published detectors, with the golden weights."""
    family = family_of(recipe_of(name))
    network = family.build(80)
    names = original_names(family, network)
    for key, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(make_tensor(names[key], tuple(tensor.shape))))
    return family, network, names


@cache
def image(shared, name):
    """Return one of the two images, (H,W,3) BGR uint8."""
    if name == "noise":
        return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    import cv2

    [path] = (Path(shared) / "data").rglob("17790319373_bd19b24cfc_k.jpg")
    return cv2.resize(cv2.imread(str(path)), (333, 250), interpolation=cv2.INTER_AREA)


def padded(images, multiple=32):
    """Return normalised images (B,3,H,W) with zeros at bottom and right, and their sizes (B,2)."""
    sizes = torch.tensor([one.shape[:2] for one in images])
    height, width = (-(-int(side) // multiple) * multiple for side in sizes.amax(0))
    batch = torch.zeros(len(images), 3, height, width)
    for place, one in zip(batch, images, strict=True):
        pixels = torch.from_numpy(one).float()
        place[:, : one.shape[0], : one.shape[1]] = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
    return batch, sizes


def golden_file(shared, name):
    return np.load(shared / "golden" / "centernet2" / f"{name}.npz")


def golden_json(shared, name):
    return json.loads((shared / "golden" / "centernet2" / f"{name}.json").read_text())
