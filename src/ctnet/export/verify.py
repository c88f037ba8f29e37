"""Verify an exported file: every output is compared with torch's on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctnet.codec.affine import fixed_view, keep_view, render_view
from ctnet.codec.pixels import normalise
from ctnet.data.image import Image
from ctnet.export.about import About

# Largest deviation relative to the largest value of an output, and of a score; part of the detections to be found.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2, "int8": 0.15}
SCORE_TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 5e-2, "int8": 0.1}
LEAST_MATCHED = {"fp32": 1.0, "fp16": 1.0, "bf16": 1.0, "int8": 0.9}
COUNTED = 0.05  # weaker detections are noise


@dataclass(frozen=True)
class OutputError:
    """The largest deviation of one output: absolute, and relative to the largest value of torch."""

    name: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class AgainstFloat32:
    """Speed and accuracy of an int8 file against the float32 file of the same format.

    `speedup` is the ratio of medians for a batch of `batch`; the APs, 0 to 1, are those of annotated images, None
    where none were given or none of their classes has a box.
    """

    speedup: float
    batch: int
    ap: float | None = None
    ap_float32: float | None = None

    @property
    def ap_drop(self) -> float | None:
        """AP of the float32 file minus that of the int8 file."""
        return None if self.ap is None or self.ap_float32 is None else self.ap_float32 - self.ap


@dataclass(frozen=True)
class Verification:
    """The result of a comparison over so many `images`; `matched` of `detections` have the same class, box and score.

    Without any detection the verification does not pass.
    """

    images: int
    outputs: tuple[OutputError, ...]
    matched: int | None
    detections: int | None
    tolerance: float
    passed: bool
    against_float32: AgainstFloat32 | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


Network = Callable[[Tensor], Mapping[str, Tensor]]


def verify(reference: Network, exported: Network, about: About, images: Sequence[Image]) -> Verification:
    """Return how far the exported network is from torch's in float32, both mapping a batch to outputs by name."""
    worst: dict[str, list[tuple[float, float]]] = {}
    matched = detections = 0
    for image in images:
        batch = image_input(image, about)
        with torch.inference_mode():
            ours, theirs = reference(batch), exported(batch)
        if about.output == "decoded":
            found, score_error, box_error, total = match_detections(ours, theirs, SCORE_TOLERANCE[about.precision])
            matched, detections = matched + found, detections + total
            worst.setdefault("scores", []).append((score_error, score_error))
            worst.setdefault("boxes", []).append((box_error, box_error / max(batch.shape[2:])))
        else:
            for name in about.output_names:
                worst.setdefault(name, []).append(_deviation(ours[name], theirs[name]))
    outputs = tuple(OutputError(name, *np.max(errors, axis=0).tolist()) for name, errors in worst.items())
    tolerance, count = TOLERANCE[about.precision], len(images)
    if about.output == "raw":
        return Verification(count, outputs, None, None, tolerance, all(o.relative <= tolerance for o in outputs))
    passed = detections > 0 and matched >= LEAST_MATCHED[about.precision] * detections
    return Verification(count, outputs, matched, detections, tolerance, passed)


def image_input(image: Image, about: About) -> Tensor:
    """Return an image as the graph takes it, (1,3,H,W) float32: at its size, else padded to a multiple."""
    data, hw = about.recipe.data, (image.shape[0], image.shape[1])
    view = fixed_view(hw, about.size) if about.size else keep_view(hw, pad=about.recipe.model.size_multiple - 1)
    pixels = torch.from_numpy(render_view(image, view))[None]
    return normalise(pixels, data.mean, data.std, color_order=data.color_order)


def _deviation(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    if ours.shape != theirs.shape:
        return float("inf"), float("inf")
    difference = (ours.double() - theirs.double()).abs()
    absolute = float(difference.nan_to_num(torch.inf).max())
    return absolute, absolute / max(float(ours.abs().max()), 1e-12)


def match_detections(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float
) -> tuple[int, float, float, int]:
    """Return how many of our detections of one image are among theirs, and how many there are to find.

    Between them: the largest deviation of a score and of a box corner in pixels over those found. Detections weaker
    than `COUNTED`, or as weak as the last one kept, where rounding decides who is in, are not compared.
    """
    mine, other = ({name: values[0].numpy() for name, values in outputs.items()} for outputs in (ours, theirs))
    boxes, scores, labels = (mine[name] for name in ("boxes", "scores", "labels"))
    floor = max(COUNTED, float(scores[-1]) + tolerance)
    wanted = np.flatnonzero(scores >= floor)
    free = np.isfinite(other["boxes"]).all(1)
    found, score_error, box_error = 0, 0.0, 0.0
    for index in wanted:
        candidates = np.flatnonzero(free & (other["labels"] == labels[index]))
        if len(candidates) == 0:
            continue
        distance = np.abs(other["boxes"][candidates] - boxes[index]).max(1)
        best = candidates[distance.argmin()]
        side = max(1.0, float((boxes[index, 2:] - boxes[index, :2]).max()))
        score = float(abs(other["scores"][best] - scores[index]))
        if distance.min() <= tolerance * side and score <= tolerance and _alike(mine, other, index, best, tolerance):
            free[best] = False
            found += 1
            score_error = max(score_error, score)
            box_error = max(box_error, float(distance.min()))
    return found, score_error, box_error, len(wanted)


def _alike(
    ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]], ours_at: Any, theirs_at: Any, tolerance: float
) -> bool:
    """Return whether two detections have the same key points and other values, relative to the largest of each."""
    for name in ours.keys() - {"boxes", "scores", "labels"}:
        expected = ours[name][ours_at]
        size = max(1.0, float(np.abs(expected).max(initial=0)))
        if not np.abs(theirs[name][theirs_at] - expected).max(initial=0) <= tolerance * size:
            return False
    return True
