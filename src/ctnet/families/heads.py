"""The heads of the centre-point families, as data. A new one is a row of this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctnet.codec.decode import gather_cells, select_class
from ctnet.codec.encode import Centers, draw_centers, spread_size
from ctnet.losses import (
    cell_regression_loss,
    dense_size_loss,
    footprint_weight,
    heatmap_focal_loss,
    heatmap_squared_loss,
)
from ctnet.ops import Peaks
from ctnet.types import Detections, Float32, KeypointSchema, Targets

Schema = KeypointSchema | None


class Rows(NamedTuple):
    """Training targets of a head, a row per object of an image: `values` (N,...) float32.

    `mask` (N,) or (N,D) selects what counts; without it, all objects that are `Centers.valid`. `cell`
    (N,...) int64 are the flat cells where the head is read; without it, those of the centres.
    """

    values: Float32
    mask: NDArray[np.bool_] | None = None
    cell: NDArray[np.int64] | None = None


class Taught(NamedTuple):
    """What a head's output is compared with in a batch, and what sums are divided by."""

    map: Tensor | None
    """the map of `Head.encode_map`, (B,...,H,W)"""
    values: Tensor | None
    """the rows of `Head.encode`, (B,N,...)"""
    mask: Tensor
    """(B,N) or (B,N,D): which rows, or numbers, count"""
    cell: Tensor
    """(B,N,...): where the head is read"""
    labels: Tensor | None
    """(B,N): the classes, where each has channels of its own"""
    divisor: Tensor
    """scalar: what the family divides by, summed over the whole batch; see `Head.count`"""
    guard: float
    """added to the divisor"""
    kind: Literal["l1", "smooth_l1"]
    """`loss.regression`"""
    targets: Targets
    """all targets of the batch"""


class Place(NamedTuple):
    """Where decoded objects are, in cells: centres (B,K,2), and their size (B,K,2) once it is known."""

    center: Tensor
    size: Tensor | None = None


def compare_at_cells(output: Tensor, taught: Taught) -> Tensor:
    """Return the loss of values at cells, in the form that `loss.regression` asks for."""
    assert taught.values is not None
    return cell_regression_loss(
        output, taught.cell, taught.values, taught.mask,
        labels=taught.labels, kind=taught.kind, count=taught.divisor, guard=taught.guard,
    )  # fmt: skip


def compare_heatmap(output: Tensor, taught: Taught) -> Tensor:
    """Return the penalty-reduced focal loss of logits."""
    assert taught.map is not None
    return heatmap_focal_loss(output, taught.map, taught.divisor)


def compare_squares(output: Tensor, taught: Taught) -> Tensor:
    """Return the mean squared distance of probabilities to a heatmap."""
    assert taught.map is not None
    return heatmap_squared_loss(output, taught.map, taught.divisor)


def count_cells(name: str, targets: Targets) -> Tensor:
    """Return the number of cells of the heatmap, over all classes."""
    heatmap = targets.maps["heatmap"]
    return torch.full((), heatmap.numel(), dtype=heatmap.dtype, device=heatmap.device)


def compare_over_footprints(output: Tensor, taught: Taught) -> Tensor:
    """Return the loss of sizes over whole gaussians, in the form that `loss.regression` asks for."""
    assert taught.map is not None
    weight = footprint_weight(taught.targets.maps["heatmap"])
    return dense_size_loss(output, taught.map, weight, taught.divisor, kind=taught.kind)


def count_footprints(name: str, targets: Targets) -> Tensor:
    """Return the weight of the cells whose size is supervised."""
    return footprint_weight(targets.maps["heatmap"]).sum()


def count_mask(name: str, targets: Targets) -> Tensor | None:
    """Return how many numbers the head's own mask has, None without one: then the family's count serves."""
    mask = targets.rows.get(f"{name}.mask")
    return None if mask is None else mask.sum().float()


def average(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the mean of an output and that of the mirror image, flipped back."""
    return (first + mirrored) / 2


def average_probability(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the logit of the mean of both probabilities, from them and from what they lack to 1.

    So float32 suffices at both ends, where 1 - p would round: not every device has float64.
    """
    first, mirrored = first.float(), mirrored.float()
    present, absent = first.sigmoid() + mirrored.sigmoid(), (-first).sigmoid() + (-mirrored).sigmoid()
    smallest = torch.finfo(torch.float32).tiny
    logit: Tensor = (present.clamp(min=smallest) / absent.clamp(min=smallest)).log()
    return logit


def take_first(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the output of the unflipped image."""
    return first


def identity(values: Tensor, place: Place) -> Tensor:
    """Return the values as they are."""
    return values


@dataclass(frozen=True)
class Head:
    """One output of a network with its targets, loss and decoding.

    Functions are those of a module, not lambdas: targets are encoded in other processes.
    """

    name: str
    """what `model.heads` calls it; also the key of its targets"""
    role: Literal["heatmap", "size", "offset", "keypoints", "value"] = "value"
    """what objects are decoded from; a `value` goes into `Instances.values` as it is decoded"""
    output: str = ""
    """the map, its module, and the output of exported files; empty: the name"""
    part: str = ""
    """the part of the loss and its weight among the settings `loss`; empty: the name"""
    channels: int = 1
    per: Literal["object", "class", "point"] = "object"
    """whether the channels are there once, for each class, or for each key point"""
    may_be_per_class: bool = False
    """whether `model.class_specific_size` gives each class channels of its own"""
    is_logit: bool = False
    """whether a fresh head starts at `model.heatmap_bias`"""
    starts_at_median: bool = False
    """whether a fresh head starts at the median of its rows over the data"""
    weight: float = 1.0
    """weight of its loss where the settings have none"""
    encode: Callable[[Centers, Schema], Rows] | None = None
    encode_map: Callable[[Centers, int, Schema], Float32] | None = None
    """returns the map that is taught; the second argument is the number of classes"""
    loss: Callable[[Tensor, Taught], Tensor] = compare_at_cells
    count: Callable[[str, Targets], Tensor | None] = count_mask
    """returns a divisor of its own, called with the name and the batch"""
    unflip: Callable[[Tensor, Tensor, Schema], Tensor] = average
    """joins the outputs of an image and of its mirror image, whose columns are in the image's order already"""
    decode: Callable[[Tensor, Place], Tensor] = identity
    """maps values (B,K,D) read at the peaks to what they mean; sizes are in cells, key points (B,K,P,2) too"""
    draw: Callable[[NDArray[np.uint8], Detections], None] | None = None
    """draws its values into an image"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", self.output or self.name)
        object.__setattr__(self, "part", self.part or self.name)

    def total_channels(self, num_classes: int, schema: Schema) -> int:
        """Return the channels of its map."""
        times = {"object": 1, "class": num_classes, "point": len(schema.names) if schema else 0}
        return self.channels * times[self.per]

    def read(self, output: Tensor, peaks: Peaks, place: Place) -> Tensor:
        """Return the decoded values of the map at the peaks."""
        values = gather_cells(output.float(), peaks.cells)
        if self.per == "class":
            values = select_class(values, peaks.labels, self.channels)
        return self.decode(values, place)


def _heatmap(centers: Centers, num_classes: int, schema: Schema) -> Float32:
    return draw_centers(centers, num_classes)


def fixed_heatmap(sigma: float, centers: Centers, num_classes: int, schema: Schema) -> Float32:
    """Return the heatmap of gaussians of one size, cut at three standard deviations."""
    return draw_centers(centers, num_classes, sigma)


def _size(centers: Centers, schema: Schema) -> Rows:
    return Rows(centers.size)


def _log_size(centers: Centers, schema: Schema) -> Rows:
    return Rows(np.log(np.where(centers.size > 0, centers.size, np.float32(1))))


def _offset(centers: Centers, schema: Schema) -> Rows:
    return Rows((centers.center - centers.cell_xy).astype(np.float32))


def _exponential(values: Tensor, place: Place) -> Tensor:
    return values.exp()


def spread_sizes(centers: Centers, num_classes: int, schema: Schema) -> Float32:
    """Return the sizes over whole gaussians, (2,H,W)."""
    return spread_size(centers)


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head(
            "heatmap", "heatmap", "heatmap_logits", per="class", is_logit=True, encode_map=_heatmap,
            loss=compare_heatmap, unflip=average_probability,
        ),
        Head("size", "size", channels=2, may_be_per_class=True, starts_at_median=True, weight=0.1, encode=_size),
        Head(
            "log_size", "size", part="size", channels=2, may_be_per_class=True, starts_at_median=True, weight=0.1,
            encode=_log_size, decode=_exponential,
        ),
        Head("offset", "offset", channels=2, encode=_offset, unflip=take_first),
    )
}  # fmt: skip
