"""Run a detector over an annotated set; images are read and rendered in loader processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from ctnet.config import Data, Evaluation
from ctnet.data.image import read_image
from ctnet.data.loader import Mapped, explaining_deaths, raising, start_worker, worker_seeds
from ctnet.detect.detector import Detector
from ctnet.detect.views import RenderedView, render_views
from ctnet.errors import DataError
from ctnet.eval.coco import CocoMetrics, align_categories, relabel
from ctnet.eval.keypoints import aligned_points
from ctnet.eval.scorer import COCO, Scorer, scorer_of
from ctnet.types import AnnotationSet, Detections, Progress, Share

ALONE = Share()


def _render(
    annotations: AnnotationSet, data: Data, multiple: int, bucket: int, settings: Evaluation, index: int
) -> tuple[int, list[RenderedView]]:
    record = annotations.images[index]
    image = read_image(record.path, value_range=data.value_range)
    return record.id, render_views(image, data.image_size, multiple, settings, bucket)


def readable(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items without those whose image cannot be read; raise other errors of the user."""
    return raising(item for item in items if not isinstance(item, DataError))


def _only(items: list[Any]) -> Any:
    return items[0]


def _dealt(count: int, batch_size: int, rank: int, ranks: int) -> list[int]:
    """Return the image indices of a rank.

    Whole batches are dealt round-robin, so batch composition (and rounding) equals a single process.
    """
    return [number for number in range(count) if number // batch_size % ranks == rank]


def evaluate(
    detector: Detector,
    annotations: AnnotationSet,
    settings: Evaluation,
    workers: int = 0,
    progress: Progress | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> dict[int, Detections]:
    """Return the detections of every image, by image id; labels are the detector's.

    Of several `ranks`, one does its part of the images; the parts make up the whole. `progress` gets (images
    done, images in all). Images that cannot be read are not among the results where the detector's recipe skips
    them. Batch size and number of workers change no result. Raises DataError for an image that cannot be read,
    LoaderDied for a process that was killed.
    """
    recipe = detector.recipe
    render = partial(_render, annotations, recipe.data, recipe.model.size_multiple, detector.bucket, settings)
    views = Mapped(render, len(annotations.images))
    mine = _dealt(len(views), settings.batch_size, rank, ranks)
    loader = DataLoader(
        views,
        batch_size=1,
        sampler=mine,
        num_workers=workers,
        collate_fn=_only,
        worker_init_fn=start_worker,
        generator=worker_seeds(),
    )
    found: dict[int, Detections] = {}
    with explaining_deaths():
        items = readable(loader) if recipe.data.on_bad_image == "skip" else raising(loader)
        for image_id, detections in detector.stream(items, settings):
            found[image_id] = detections
            if progress is not None:
                progress(len(found), len(mine))
    return found


def evaluate_shared(
    detector: Detector,
    annotations: AnnotationSet,
    settings: Evaluation,
    workers: int = 0,
    progress: Progress | None = None,
    share: Share = ALONE,
) -> dict[int, Detections]:
    """Return what `evaluate` of one process returns, in every process: each does its share."""
    mine = evaluate(detector, annotations, settings, workers, progress, share.rank, share.ranks)
    found = {image_id: one for part in share.gather(mine) for image_id, one in part.items()}
    return {image.id: found[image.id] for image in annotations.images if image.id in found}


def only(annotations: AnnotationSet, detections: Mapping[int, Detections]) -> AnnotationSet:
    """Return the set of those images that a detector looked at. Raises DataError when there are none."""
    images = tuple(image for image in annotations.images if image.id in detections)
    if annotations.images and not images:
        raise DataError("no image of the set can be read", annotations=annotations.source)
    return replace(annotations, images=images)


def score(
    detector: Detector,
    annotations: AnnotationSet,
    settings: Evaluation,
    workers: int = 0,
    progress: Progress | None = None,
    scorer: Scorer | None = None,
    share: Share = ALONE,
) -> tuple[CocoMetrics, dict[int, Detections], tuple[str, ...]]:
    """Return the metrics, the detections in the set's labels and key points, and notes on what they mean.

    Several processes detect on their `share` of the images each; the results are those of one. Images without
    detections, not even an empty set of them, could not be read; they are not scored.

    `scorer` None takes that which suits detector and set. Raises what `align_categories` raises for a set that shares
    no class with the detector.
    """
    alignment = align_categories(detector.categories, annotations.categories)
    detections = relabel(evaluate_shared(detector, annotations, settings, workers, progress, share), alignment)
    notes = list(alignment.warnings)
    if annotations.keypoints is not None:
        detections, warning = aligned_points(detections, detector.family.keypoints, annotations.keypoints)
        notes += [warning] if warning else []
        scorer = scorer or scorer_of(detector.family, annotations)
    scorer = scorer or COCO
    notes += scorer.notes(annotations)
    scored = only(annotations, detections)
    return scorer.score(scored, detections, settings.max_detections), detections, tuple(notes)
