"""The detections of several views of an image as one list, by NMS ("Objects as Points", section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ctnet.config import Evaluation
from ctnet.ops import nms, soft_nms
from ctnet.types import Detections


def merges_hard(settings: Evaluation) -> bool:
    """Return whether views are merged by hard NMS."""
    return settings.nms == "hard" or (settings.tiles > 0 and settings.nms == "none")


def merge_views(parts: Sequence[Detections], settings: Evaluation) -> Detections:
    """Return the detections of one image from those of its views, after NMS if set, strongest first.

    As upstream, several views are merged by soft-NMS per class unless `nms` is hard, and ties at the last place
    are all kept. Tiles are merged by hard NMS unless `nms` is soft: an object is the same in all of them.
    """
    found = parts[0].concatenate(*parts[1:])
    if merges_hard(settings) and (settings.nms == "hard" or len(parts) > len(settings.scales)):
        boxes, scores, labels = map(torch.from_numpy, (found.boxes_xyxy, found.scores, found.labels))
        found = found.select(nms(boxes, scores, labels).numpy())
    elif settings.nms == "soft" or len(parts) > 1:
        decayed = found.scores.copy()
        for label in np.unique(found.labels):
            mine = found.labels == label
            boxes, scores = torch.from_numpy(found.boxes_xyxy[mine]), torch.from_numpy(decayed[mine])
            decayed[mine] = soft_nms(boxes, scores).numpy()
        found = replace(found, scores=decayed)
    if len(found) > settings.max_detections:
        found = found.above(np.sort(found.scores)[-settings.max_detections])
    return found.select(np.argsort(-found.scores, kind="stable"))
