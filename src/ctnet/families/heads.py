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
from ctnet.codec.encode import Centers, draw_centers, draw_points, spread_points, spread_size
from ctnet.losses import (
    cell_regression_loss,
    count_centers,
    dense_size_loss,
    footprint_weight,
    heatmap_focal_loss,
    heatmap_squared_loss,
)
from ctnet.ops import Peaks
from ctnet.types import Detections, Float32, KeypointSchema, Targets

Schema = KeypointSchema | None
SMALLEST_FACE = 1.0
"""cells that the box of a face with landmarks covers at least: 16 pixels at stride 4, as in CenterFace"""


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
    class_weights: Tensor | None = None
    """(C,): factors of the loss of a heatmap"""


class Place(NamedTuple):
    """Where decoded objects are, in cells: the cells of their centres, and the centres, (B,K,2).

    And their size (B,K,2) once it is known.
    """

    cell: Tensor
    center: Tensor
    size: Tensor | None = None


def compare_at_cells(output: Tensor, taught: Taught) -> Tensor:
    """Return the loss of values at cells, in the form that `loss.regression` asks for."""
    assert taught.values is not None
    return cell_regression_loss(
        output, taught.cell, taught.values, taught.mask,
        labels=taught.labels, kind=taught.kind, count=taught.divisor, guard=taught.guard,
    )  # fmt: skip


def compare_numbers(output: Tensor, taught: Taught) -> Tensor:
    """Return the L1 of values at cells, in whatever form other values are compared."""
    return compare_at_cells(output, taught._replace(kind="l1"))


def compare_at_points(output: Tensor, taught: Taught) -> Tensor:
    """Return the loss of values at the cells of key points, rows (B,N,P,2)."""
    assert taught.values is not None
    values, mask, cell = taught.values.flatten(1, 2), taught.mask.flatten(1), taught.cell.flatten(1)
    return compare_at_cells(output, taught._replace(values=values, mask=mask, cell=cell))


def compare_heatmap(output: Tensor, taught: Taught) -> Tensor:
    """Return the penalty-reduced focal loss of logits."""
    assert taught.map is not None
    return heatmap_focal_loss(output, taught.map, taught.divisor, taught.class_weights)


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


def compare_points_over_footprints(output: Tensor, taught: Taught) -> Tensor:
    """Return the weighted L1 of key points over whole gaussians."""
    assert taught.map is not None
    count = output.shape[1]
    numbers, weights = taught.map[:, :count], taught.map[:, count:]
    return dense_size_loss(output, numbers, weights.repeat_interleave(2, 1), taught.divisor)


def count_footprints(name: str, targets: Targets) -> Tensor:
    """Return the weight of the cells whose size is supervised."""
    return footprint_weight(targets.maps["heatmap"]).sum()


def count_mask(name: str, targets: Targets) -> Tensor | None:
    """Return how many numbers the head's own mask has, None without one: then the family's count serves."""
    mask = targets.rows.get(f"{name}.mask")
    return None if mask is None else mask.sum().float()


def count_point_footprints(name: str, targets: Targets) -> Tensor:
    """Return the weight of the numbers of key points over gaussians, two each."""
    spread = targets.maps[name]
    weight: Tensor = spread[:, spread.shape[1] // 3 * 2 :].sum()
    return 2 * weight


def count_peaks(name: str, targets: Targets) -> Tensor:
    """Return the number of places in the head's own heatmap."""
    return count_centers(targets.maps[name]).float()


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


def average_points(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the mean of key points measured from a place, x and y in turn."""
    return (first + _mirror_points(mirrored, schema, 0)) / 2


def average_points_in_box(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the mean of key points in sides of the box from its left top."""
    return (first + _mirror_points(mirrored, schema, 1)) / 2


def _mirror_points(mirrored: Tensor, schema: Schema, width: float) -> Tensor:
    """Return the mirror image's key points as the image has them: pairs swapped, x as `width` - x."""
    assert schema is not None
    pairs = mirrored.reshape(mirrored.shape[0], -1, 2, *mirrored.shape[2:])[:, schema.mirrored()]
    return torch.stack([width - pairs[:, :, 0], pairs[:, :, 1]], 2).flatten(1, 2)


def average_point_probability(first: Tensor, mirrored: Tensor, schema: Schema) -> Tensor:
    """Return the logit of the mean of both probabilities of each key point."""
    assert schema is not None
    return average_probability(first, mirrored[:, schema.mirrored()], schema)


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
    role: Literal["heatmap", "size", "offset", "keypoints", "keypoint_heatmap", "keypoint_offset", "value"] = "value"
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

    @property
    def needs_keypoints(self) -> bool:
        """Whether it means something only where objects have key points."""
        return self.per == "point" or self.role.startswith("keypoint")

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


def labelled_points(centers: Centers, schema: Schema) -> tuple[Float32, NDArray[np.bool_]]:
    """Return the key points in cells, (N,P,2), and which of them are labelled and on the map, (N,P)."""
    assert schema is not None
    points = centers.objects.keypoints
    if points is None:
        points = np.zeros((len(centers.objects), len(schema.names), 3), np.float32)
    end = np.array(centers.map_hw[::-1], np.float32)
    places = points[..., :2]
    return places, (points[..., 2] > 0) & (places >= 0).all(-1) & (places < end).all(-1)


def _numbers(values: NDArray[np.floating], labelled: NDArray[np.bool_]) -> Rows:
    """Return rows of x and y in turn, (N,2P), of points (N,P,2)."""
    numbers = np.where(labelled[..., None], values, 0).astype(np.float32)
    return Rows(numbers.reshape(len(numbers), 2 * labelled.shape[1]), np.repeat(labelled, 2, axis=1))


def _keypoints(centers: Centers, schema: Schema) -> Rows:
    places, labelled = labelled_points(centers, schema)
    return _numbers(places - centers.cell_xy[:, None].astype(np.float32), labelled)


def _landmarks(centers: Centers, schema: Schema) -> Rows:
    places, labelled = labelled_points(centers, schema)
    large = centers.size.prod(1, keepdims=True) > SMALLEST_FACE
    return _numbers(places - centers.cell_xy[:, None].astype(np.float32), labelled & large)


def _box_landmarks(centers: Centers, schema: Schema) -> Rows:
    places, labelled = labelled_points(centers, schema)
    size = np.where(centers.size > 0, centers.size, np.float32(1))[:, None]
    return _numbers((places - centers.objects.boxes_xyxy[:, None, :2]) / size, labelled)


def _keypoint_heatmap(centers: Centers, num_classes: int, schema: Schema) -> Float32:
    return draw_points(centers, *labelled_points(centers, schema))


def spread_keypoints(centers: Centers, num_classes: int, schema: Schema) -> Float32:
    """Return the key points over whole gaussians and their weights, (3P,H,W)."""
    return spread_points(centers, *labelled_points(centers, schema))


def _keypoint_offset(centers: Centers, schema: Schema) -> Rows:
    places, labelled = labelled_points(centers, schema)
    places = np.where(labelled[..., None], places, np.float32(0))
    cell = places.astype(np.int64)
    return Rows((places - cell).astype(np.float32), labelled, cell[..., 1] * centers.map_hw[1] + cell[..., 0])


def _in_pairs(values: Tensor) -> Tensor:
    """Return points (...,P,2) of numbers (...,2P)."""
    return values.reshape(*values.shape[:-1], -1, 2)


def _from_cell(values: Tensor, place: Place) -> Tensor:
    return _in_pairs(values) + place.cell.unsqueeze(-2)


def from_center(values: Tensor, place: Place) -> Tensor:
    """Return key points measured from the centres themselves."""
    return _in_pairs(values) + place.center.unsqueeze(-2)


def _from_box(values: Tensor, place: Place) -> Tensor:
    assert place.size is not None
    corner = place.center - place.size / 2
    return _in_pairs(values) * place.size.unsqueeze(-2) + corner.unsqueeze(-2)


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
        Head(
            "keypoints", "keypoints", channels=2, per="point", starts_at_median=True, encode=_keypoints,
            loss=compare_numbers, unflip=average_points, decode=_from_cell,
        ),
        Head(
            "landmarks", "keypoints", channels=2, per="point", starts_at_median=True, weight=0.1, encode=_landmarks,
            loss=compare_numbers, unflip=average_points, decode=_from_cell,
        ),
        Head(
            "box_landmarks", "keypoints", channels=2, per="point", starts_at_median=True, encode=_box_landmarks,
            loss=compare_numbers, unflip=average_points_in_box, decode=_from_box,
        ),
        Head(
            "keypoint_heatmap", "keypoint_heatmap", "keypoint_logits", per="point", is_logit=True,
            encode_map=_keypoint_heatmap, loss=compare_heatmap, count=count_peaks, unflip=average_point_probability,
        ),
        Head(
            "keypoint_offset", "keypoint_offset", channels=2, encode=_keypoint_offset, loss=compare_at_points,
            unflip=take_first,
        ),
    )
}  # fmt: skip
