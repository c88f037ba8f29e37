"""The test settings beside every number: without them two APs cannot be compared."""

from __future__ import annotations

from typing import Any

from ctnet.config import Evaluation, Recipe
from ctnet.detect.merge import merges_hard
from ctnet.detect.views import test_size


def protocol_of(recipe: Recipe, settings: Evaluation, num_images: int, precision: str = "float32") -> dict[str, Any]:
    """Return the protocol, ready for JSON.

    `unreadable` images are none of the `images`; `trained_on` are those that are also in the training set, byte for
    byte. Both are counted by whoever reads them.
    """
    size = test_size(recipe.data.image_size, recipe.model.size_multiple, settings)
    soft = settings.nms == "soft" or (settings.nms == "none" and len(settings.scales) > 1)
    return {
        "resolution": "keep-res" if settings.keep_res else "fixed-res",
        "image_size": None if settings.keep_res else list(size),
        "flip": settings.flip,
        "scales": list(settings.scales),
        "nms": "hard" if merges_hard(settings) else "soft" if soft else settings.nms,
        **({"tiles": settings.tiles, "overlap": settings.overlap} if settings.tiles else {}),
        "top_k": settings.top_k,
        "max_detections": settings.max_detections,
        "score_floor": settings.score_floor,
        "precision": precision,
        "images": num_images,
        "unreadable": 0,
        "trained_on": 0,
        "iou": "0.50:0.95",
    }


def sentence(protocol: dict[str, Any]) -> str:
    """Return the protocol as one readable line."""
    size = protocol["image_size"]
    counts = {"unreadable and left out": protocol.get("unreadable"), "of them trained on": protocol.get("trained_on")}
    parts = [
        ", ".join([f"{protocol['images']} images", *(f"{n} {words}" for words, n in counts.items() if n)]),
        f"fixed {size[0]}x{size[1]}" if size else "kept resolution",
        "flip test" if protocol["flip"] else "no flip",
        "scale " + ", ".join(f"{scale:g}" for scale in protocol["scales"]),
        *([f"tiles of {protocol['tiles']}, overlap {protocol['overlap']:g}"] if "tiles" in protocol else []),
        "no NMS" if protocol["nms"] == "none" else f"{protocol['nms']} NMS",
        f"top {protocol['top_k']}, at most {protocol['max_detections']} detections",
    ]
    if protocol["score_floor"] > 0:
        parts.append(f"scores from {protocol['score_floor']:g}")
    parts.append(protocol["precision"])
    return " · ".join(parts) + f" · IoU {protocol['iou']}"
