"""From rendered views to detections: batches of equal views, decoding, mapping to image pixels.

This is CenterNet's test procedure ("Objects as Points", section 5, and its published evaluation code): keep-res or
fixed-res views, several scales, flip test, soft-NMS, the strongest detections per image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.affine import transform_boxes, transform_points
from ctnet.config import Evaluation
from ctnet.detect.merge import merge_views
from ctnet.detect.tiles import Region, without_parts
from ctnet.detect.views import RenderedView
from ctnet.errors import ConfigError
from ctnet.families import Family
from ctnet.families.family import Outputs
from ctnet.types import Detections, Float32, Instances

Key = TypeVar("Key", bound=Hashable)
DetectViews = Callable[[Sequence[RenderedView]], list[Detections]]


def detect_stream(
    detect: DetectViews, images: Iterable[tuple[Key, list[RenderedView]]], settings: Evaluation
) -> Iterator[tuple[Key, Detections]]:
    """Yield (key, detections) for each rendered image, in the order in which they are finished.

    `detect` returns the detections of a batch of views of one size. Views of equal size are batched across images, so
    at most a batch of each size is waiting at any time.
    """
    waiting: dict[tuple[int, int], list[tuple[Key, int, RenderedView]]] = {}
    unfinished: dict[Key, list[Detections | None]] = {}
    regions: dict[Key, list[Region | None]] = {}

    def run(batch: list[tuple[Key, int, RenderedView]]) -> Iterator[tuple[Key, Detections]]:
        results = detect([view for _, _, view in batch])
        for (key, number, _), detections in zip(batch, results, strict=True):
            unfinished[key][number] = detections
            parts = [part for part in unfinished[key] if part is not None]
            if len(parts) == len(unfinished[key]):
                del unfinished[key]
                yield key, merge_views(without_parts(parts, regions.pop(key)), settings)

    for key, views in images:
        unfinished[key] = [None] * len(views)
        regions[key] = [view.region for view in views]
        for number, view in enumerate(views):
            batch = waiting.setdefault(view.view.input_hw, [])
            batch.append((key, number, view))
            if len(batch) == settings.batch_size:
                del waiting[view.view.input_hw]
                yield from run(batch)
    for batch in waiting.values():
        yield from run(batch)


def view_detections(
    family: Family, outputs: Outputs | Instances, views: Sequence[RenderedView], settings: Evaluation
) -> list[Detections]:
    """Return the detections of each view from what `Family.detect` returned, in pixels of its image.

    With `settings.flip` the outputs are of the views and of their mirror images. Raises ConfigError when these cannot
    be joined because the network decodes itself.
    """
    if isinstance(outputs, Instances):
        if settings.flip:
            raise ConfigError("flip test needs raw outputs, and this network returns decoded boxes", hint="--no-flip")
        instances = outputs
    else:
        instances = family.decode(family.unflip(outputs) if settings.flip else outputs, settings.top_k)
    arrays = {name: values[:, : settings.top_k].cpu().numpy() for name, values in instances.named().items()}
    found = []
    for i, view in enumerate(views):
        batch = {name: values[i] for name, values in arrays.items()}
        keep = (batch["scores"] > 0) & (batch["scores"] >= settings.score_floor)
        found.append(_in_image({name: values[keep] for name, values in batch.items()}, view))
    return found


def _in_image(found: dict[str, NDArray[np.floating]], view: RenderedView) -> Detections:
    matrix = view.view.from_input()
    if view.region is not None:
        matrix = matrix + np.array([[0, 0, view.region.x1], [0, 0, view.region.y1]])
    points = found.pop("keypoints", None)
    keypoints: Float32 | None = None
    if points is not None:
        mapped = transform_points(points.reshape(-1, 2), matrix)
        keypoints = mapped.reshape(points.shape).astype(np.float32)
    boxes, scores, labels = (found.pop(name) for name in ("boxes", "scores", "labels"))
    return Detections(transform_boxes(boxes, matrix), scores, labels, keypoints, found)  # type: ignore[arg-type]
