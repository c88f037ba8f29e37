"""From pictures to detections: views of each picture, batches of equal views, decoding, merging.

This is CenterNet's test procedure ("Objects as Points", section 5, and its published evaluation code): keep-res or
fixed-res views, several scales, flip test, soft-NMS, the strongest detections per picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctnet.codec.affine import View, fixed_view, keep_view, render_view, transform_boxes
from ctnet.codec.decode import peak_boxes
from ctnet.codec.pixels import normalise
from ctnet.config import Data, Evaluation
from ctnet.errors import ConfigError
from ctnet.models.build import STRIDE
from ctnet.ops import decode_peaks, nms, soft_nms
from ctnet.types import Detections, Float32, Int64

if TYPE_CHECKING:
    from ctnet.models.detector import Detector

Key = TypeVar("Key", bound=Hashable)


class RenderedView(NamedTuple):
    """A view and its pixels, (H,W,3) BGR uint8 of `view.input_hw`."""

    view: View
    pixels: NDArray[np.uint8]


def render_views(
    image_bgr: NDArray[np.uint8], image_size: tuple[int, int], multiple: int, settings: Evaluation
) -> list[RenderedView]:
    """Return one rendered view of the picture per test scale, its sides multiples of `multiple`."""
    image_hw = (image_bgr.shape[0], image_bgr.shape[1])
    test_hw = enlarged(image_size, settings.test_scale, multiple)
    views = [
        keep_view(image_hw, scale, multiple - 1) if settings.keep_res else fixed_view(image_hw, test_hw, scale)
        for scale in settings.scales
    ]
    return [RenderedView(view, render_view(image_bgr, view)) for view in views]


def enlarged(image_size: tuple[int, int], factor: float, multiple: int) -> tuple[int, int]:
    """Return the test input (height, width): `image_size` times the factor, in whole multiples of `multiple`."""
    height, width = (max(1, round(side * factor / multiple)) * multiple for side in image_size)
    return height, width


def detect_stream(
    detector: Detector, pictures: Iterable[tuple[Key, list[RenderedView]]], settings: Evaluation
) -> Iterator[tuple[Key, Detections]]:
    """Yield (key, detections) for each rendered picture, in the order in which they are finished.

    Views of equal size are batched across pictures, so at most a batch of each size is waiting at any time.
    """
    waiting: dict[tuple[int, int], list[tuple[Key, int, RenderedView]]] = {}
    unfinished: dict[Key, list[Detections | None]] = {}

    def run(batch: list[tuple[Key, int, RenderedView]]) -> Iterator[tuple[Key, Detections]]:
        results = _detect_views(detector, [view for _, _, view in batch], settings)
        for (key, scale, _), detections in zip(batch, results, strict=True):
            unfinished[key][scale] = detections
            parts = [part for part in unfinished[key] if part is not None]
            if len(parts) == len(settings.scales):
                del unfinished[key]
                yield key, merge_views(parts, settings)

    for key, views in pictures:
        unfinished[key] = [None] * len(views)
        for scale, view in enumerate(views):
            batch = waiting.setdefault(view.view.input_hw, [])
            batch.append((key, scale, view))
            if len(batch) == settings.batch_size:
                del waiting[view.view.input_hw]
                yield from run(batch)
    for batch in waiting.values():
        yield from run(batch)


@torch.inference_mode()
def _detect_views(detector: Detector, views: Sequence[RenderedView], settings: Evaluation) -> list[Detections]:
    # where another size costs a compilation, the rest of a smaller batch is black
    count = settings.batch_size if detector.device.plugin.static_shapes else len(views)
    x = network_input(views, detector.recipe.data, detector.device.torch_device, count)
    if settings.flip:
        x = torch.cat([x, x.flip(3)])
    return view_detections(detector.model(x), views, settings)


def network_input(views: Sequence[RenderedView], data: Data, device: torch.device, count: int | None = None) -> Tensor:
    """Return the normalised batch (N,3,H,W) of views of one size, on the device, filled up to `count` with black."""
    pixels = np.stack([view.pixels for view in views])
    if count is not None and count > len(views):
        pixels = np.pad(pixels, [(0, count - len(views)), (0, 0), (0, 0), (0, 0)])
    on_device = torch.from_numpy(pixels).to(device)
    return normalise(on_device, data.mean, data.std, color_order=data.color_order)


def view_detections(
    outputs: dict[str, Tensor] | list[dict[str, Tensor]], views: Sequence[RenderedView], settings: Evaluation
) -> list[Detections]:
    """Return the detections of each view from what the network said, boxes in pixels of its picture.

    With `settings.flip` the outputs are of the views and of their mirror images.
    """
    heads = outputs[-1] if isinstance(outputs, list) else outputs
    if "boxes" in heads:
        boxes, scores, labels = _decoded(heads, settings)
    else:
        if settings.flip:
            heads = _average_flipped(heads)
        peaks = decode_peaks(heads["heatmap_logits"], settings.top_k)
        boxes = peak_boxes(peaks, heads["size"], heads.get("offset")).cpu().numpy()
        scores, labels = peaks.scores.cpu().numpy(), peaks.labels.cpu().numpy()
    found = []
    for i, view in enumerate(views):
        keep = (scores[i] > 0) & (scores[i] >= settings.score_floor)
        in_picture = transform_boxes(boxes[i][keep], view.view.from_cells(STRIDE))
        found.append(Detections(in_picture, scores[i][keep], labels[i][keep]))
    return found


def _decoded(heads: dict[str, Tensor], settings: Evaluation) -> tuple[Float32, Float32, Int64]:
    """Return boxes in cells, scores and labels of a network that decodes by itself, as exported files may."""
    if settings.flip:
        raise ConfigError("this network decodes by itself, so mirrored pictures cannot be averaged", hint="--no-flip")
    kept = slice(settings.top_k)
    boxes, scores, labels = (heads[name][:, kept].cpu().numpy() for name in ("boxes", "scores", "labels"))
    return (boxes / STRIDE).astype(np.float32), scores, labels


def _average_flipped(heads: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return heads of N pictures from those of N pictures and their N mirror images.

    Probabilities and sizes are averaged, the offset is the unflipped picture's.
    """
    first, mirrored = heads["heatmap_logits"].float().sigmoid().chunk(2)
    size, mirrored_size = heads["size"].chunk(2)
    averaged = {
        "heatmap_logits": torch.logit((first.double() + mirrored.double().flip(3)) / 2).float(),
        "size": (size + mirrored_size.flip(3)) / 2,
    }
    if "offset" in heads:
        averaged["offset"] = heads["offset"].chunk(2)[0]
    return averaged


def merge_views(parts: Sequence[Detections], settings: Evaluation) -> Detections:
    """Return the detections of one picture from those of its views: suppressed if asked for, strongest first.

    As upstream, several views are merged by soft-NMS per class unless `nms` is hard, and ties at the last place
    are all kept.
    """
    boxes = np.concatenate([part.boxes_xyxy for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    if settings.nms == "hard":
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)).numpy()
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    elif settings.nms == "soft" or len(parts) > 1:
        scores = scores.copy()
        for label in np.unique(labels):
            mine = labels == label
            decayed = soft_nms(torch.from_numpy(boxes[mine]), torch.from_numpy(scores[mine]))
            scores[mine] = decayed.numpy()
    if len(scores) > settings.max_detections:
        last = np.sort(scores)[-settings.max_detections]
        strong = scores >= last
        boxes, scores, labels = boxes[strong], scores[strong], labels[strong]
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order], labels[order])
