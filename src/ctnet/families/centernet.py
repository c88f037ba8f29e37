"""One-stage detectors with outputs at object centres ("Objects as Points"), by the rules of the original or mmdet's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctnet.codec import encode
from ctnet.codec.decode import cell_positions, center_boxes, gather_cells, move_to_peaks, point_peaks
from ctnet.config import CenterFaceModel, CenterNetLoss, CenterNetModel, PoseLoss, Recipe
from ctnet.errors import ConfigError, nearest
from ctnet.families.family import Family, FindPeaks, Outputs, Sum, alone
from ctnet.families.heads import (
    HEADS,
    Head,
    Place,
    Taught,
    compare_heatmap,
    compare_over_footprints,
    compare_points_over_footprints,
    compare_squares,
    count_cells,
    count_footprints,
    count_point_footprints,
    fixed_heatmap,
    from_center,
    spread_keypoints,
    spread_sizes,
)
from ctnet.losses import GUARD, box_giou_loss, count_centers, unclamped_focal_loss
from ctnet.models.centernet import build_centernet
from ctnet.models.heads import Heads
from ctnet.ops import decode_peaks
from ctnet.types import Instances, KeypointSchema, Objects, Targets


@dataclass(frozen=True)
class Rules:
    """Whose rules turn boxes into targets, and outputs into losses."""

    clip: encode.Clip
    radii: encode.Radii
    last_wins: bool
    """of two objects in a cell the later alone is compared there"""
    per_center: bool
    """sums are divided by the centres of the heatmap, where objects of a class in one cell are one, not by objects"""
    guard: float
    heatmap_loss: Callable[[Tensor, Taught], Tensor]


NOWHERE = Place(torch.zeros(2), torch.zeros(2))
"""for sizes, which are decoded alike wherever they are"""


def _unclamped(output: Tensor, taught: Taught) -> Tensor:
    assert taught.map is not None
    return unclamped_focal_loss(output, taught.map, taught.divisor, taught.class_weights)


RULES = {
    "centernet": Rules(encode.clip_to_cells, encode.centernet_radii, False, False, GUARD, compare_heatmap),
    "mmdet": Rules(encode.clip_to_view, encode.mmdet_radii, True, True, 0.0, _unclamped),
    "centerface": Rules(encode.clip_to_cells, encode.centernet_radii, False, False, GUARD, _unclamped),
}


@dataclass(frozen=True)
class CenterEncoder:
    """Targets of one image: those of each head, and `cell`, `label` and `valid` of each object."""

    heads: tuple[Head, ...]
    rules: Rules
    num_classes: int
    stride: int
    keypoints: KeypointSchema | None = None
    labelled_only: bool = False
    """regression counts only for objects with a labelled key point"""

    def __call__(self, objects: Objects, input_hw: tuple[int, int]) -> Targets:
        """Return the targets of objects in input pixels."""
        centers = self._place(objects, input_hw)
        maps = {
            head.name: head.encode_map(centers, self.num_classes, self.keypoints)
            for head in self.heads
            if head.encode_map is not None
        }
        return Targets(maps, self._rows(centers))

    def rows(self, objects: Objects, input_hw: tuple[int, int]) -> dict[str, Any]:
        """Return the rows of the targets alone."""
        return self._rows(self._place(objects, input_hw))

    def _place(self, objects: Objects, input_hw: tuple[int, int]) -> encode.Centers:
        rules, stride = self.rules, np.float32(self.stride)
        map_hw = input_hw[0] // self.stride, input_hw[1] // self.stride
        points = objects.keypoints
        if points is not None:
            points = np.concatenate([points[..., :2] / stride, points[..., 2:]], -1)
        in_cells = Objects(objects.boxes_xyxy / stride, objects.labels, points)
        centers = encode.place_centers(in_cells, map_hw, rules.clip, rules.radii, last_wins=rules.last_wins)
        if self.labelled_only:
            labelled = np.zeros(len(objects), bool) if points is None else (points[..., 2] > 0).any(1)
            centers = replace(centers, valid=centers.valid & labelled)
        return centers

    def _rows(self, centers: encode.Centers) -> dict[str, Any]:
        valid = centers.valid
        rows: dict[str, Any] = {}
        for head in self.heads:
            if head.encode is not None:
                taught = head.encode(centers, self.keypoints)
                rows[head.name] = _where(valid, taught.values)
                if taught.mask is not None:
                    rows[f"{head.name}.mask"] = _where(valid, taught.mask)
                if taught.cell is not None:
                    rows[f"{head.name}.cell"] = _where(valid, taught.cell)
        labels = centers.objects.labels
        return rows | {"cell": _where(valid, centers.cell), "label": _where(valid, labels), "valid": valid}


def _where(valid: Any, values: Any) -> Any:
    """Return rows that are zero where the object is not compared."""
    rows = np.zeros_like(values)
    rows[valid] = values[valid]
    return rows


class CenterNetFamily(Family):
    """Heatmap, size and, mostly, offset, or a user's own combination of heads."""

    def __init__(self, recipe: Recipe, keypoints: KeypointSchema | None = None) -> None:
        super().__init__(recipe, keypoints)
        model, loss = recipe.model, recipe.loss
        assert isinstance(model, CenterNetModel)
        assert isinstance(loss, CenterNetLoss)
        self.model, self.loss, self.rules = model, loss, RULES[loss.targets]
        self.heads = tuple(self._adapted(head) for head in choose_heads(model.head_names, keypoints))
        self.by_role = {head.role: head for head in self.heads if head.role != "value"}
        self.strides = (model.stride,)
        self.output_names = tuple(head.output for head in self.heads)
        values = [head.name for head in self.heads if head.role == "value"]
        points = ["keypoints"] if "keypoints" in self.by_role else []
        self.instance_names = ("boxes", "scores", "labels", *points, *values)
        self.drawers = tuple(head.draw for head in self.heads if head.draw is not None)
        weights = {head.part: getattr(loss, head.part, head.weight) for head in self.heads}
        self.loss_weights = weights | ({"giou": loss.giou} if loss.giou > 0 else {})

    def _adapted(self, head: Head) -> Head:
        """Return the row adapted to the recipe's rules."""
        if head.role == "heatmap":
            head = replace(head, loss=self.rules.heatmap_loss)
            if self.loss.heatmap_form == "mse":
                head = replace(
                    head, encode_map=partial(fixed_heatmap, self.loss.sigma), loss=compare_squares, count=count_cells
                )  # fmt: skip
        if head.role == "size" and self.loss.size_targets == "dense":
            head = replace(
                head, encode_map=spread_sizes, loss=compare_over_footprints, count=count_footprints
            )  # fmt: skip
        if head.name == "keypoints" and getattr(self.loss, "keypoint_targets", "center") == "dense":
            head = replace(
                head, encode_map=spread_keypoints, loss=compare_points_over_footprints, count=count_point_footprints
            )  # fmt: skip
        if head.may_be_per_class and self.model.class_specific_size:
            head = replace(head, per="class")
        if head.name == "landmarks" and isinstance(self.model, CenterFaceModel):
            head = replace(head, decode=from_center) if self.model.landmark_origin == "center" else head
        return head

    def build(self, num_classes: int) -> nn.Module:
        """Return the network, randomly initialised."""
        channels = {head.output: head.total_channels(num_classes, self.keypoints) for head in self.heads}
        logits = {head.output: self.model.heatmap_bias for head in self.heads if head.is_logit}
        return build_centernet(self.model, channels, logits)

    def class_layers(self, network: nn.Module) -> Iterator[tuple[str, int, int]]:
        """Yield the last layers of heads that have, or may have, channels for each class."""
        each = {head.output: head.channels for head in self.heads if head.per == "class" or head.may_be_per_class}
        last: dict[tuple[str, str], str] = {}
        for name, module in network.named_modules():
            for head in each:
                before, found, _ = f".{name}.".partition(f".{head}.")
                if found and isinstance(module, nn.Conv2d):
                    last[before, head] = name
        yield from ((name, each[head], 0) for (_, head), name in last.items())

    def encoder(self, num_classes: int) -> CenterEncoder:
        """Return what makes the targets."""
        labelled_only = isinstance(self.loss, PoseLoss) and not self.loss.boxes_without_points
        return CenterEncoder(self.heads, self.rules, num_classes, self.strides[0], self.keypoints, labelled_only)

    def start_from(self, network: nn.Module, rows: Mapping[str, Tensor]) -> list[str]:
        """Initialise heads marked for it at the median of the data."""
        valid = rows["valid"]
        if not bool(valid.any()):
            return []
        taught = {name: values[valid] for name, values in rows.items()}
        modules = [module for module in network.modules() if isinstance(module, Heads)]
        for head in self.heads:
            if head.starts_at_median:
                values = taught[head.name]
                if f"{head.name}.mask" in taught:
                    values = values.where(taught[f"{head.name}.mask"], torch.nan)
                for module in modules:
                    module.start_at_median(head.output, values, taught["label"])
        size = self.by_role["size"]
        width, height = size.decode(taught[size.name].median(0).values, NOWHERE).tolist()
        cells = f"{width:.1f} x {height:.1f} cells (1 cell = {self.strides[0]} px)"
        return [f"size head starts from the median box: {cells}"]

    def normalisers(self, targets: Targets) -> dict[str, Tensor]:
        """Return the centres, the objects, and what heads count themselves."""
        centers = count_centers(targets.maps["heatmap"]).float()
        counts = {"centers": centers, "objects": targets.rows["valid"].sum().float()}
        own = {head.name: head.count(head.name, targets) for head in self.heads}
        return counts | {name: count for name, count in own.items() if count is not None}

    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Targets,
        normalisers: Mapping[str, Tensor],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        sum_over_ranks: Sum = alone,
    ) -> dict[str, Tensor]:
        """Return the parts of the loss, means over the stacks."""
        with autocast():
            outputs = network(images)
        return self.compare(outputs, targets, normalisers)

    def compare(
        self, outputs: Sequence[Outputs], targets: Targets, normalisers: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of raw outputs, means over the stacks."""
        parts = {name: targets.maps["heatmap"].new_zeros(()) for name in self.loss_weights}
        for maps in outputs:
            found = {head.part: head.loss(maps[head.output], self._taught(head, targets, normalisers))
                     for head in self.heads}  # fmt: skip
            if "giou" in parts:
                found["giou"] = self._giou(maps, targets, normalisers)
            parts |= {name: parts[name] + part / len(outputs) for name, part in found.items()}
        return parts

    def _taught(self, head: Head, targets: Targets, normalisers: Mapping[str, Tensor]) -> Taught:
        maps, rows = targets
        if head.role == "heatmap":
            count = normalisers["centers"]
        elif self.rules.per_center:
            count = normalisers["centers"].clamp(min=1)
        else:
            count = normalisers["objects"]
        return Taught(
            maps.get(head.name),
            rows.get(head.name),
            rows.get(f"{head.name}.mask", rows["valid"]),
            rows.get(f"{head.name}.cell", rows["cell"]),
            rows["label"] if head.per == "class" else None,
            normalisers.get(head.name, count),
            self.rules.guard,
            self.loss.regression,
            targets,
            self._class_weights(maps) if head.role == "heatmap" else None,
        )

    def _class_weights(self, maps: Mapping[str, Tensor]) -> Tensor | None:
        weights, heat = self.loss.class_weights, maps["heatmap"]
        if isinstance(weights, str):
            return None
        if len(weights) != heat.shape[1]:
            raise ConfigError(
                "there must be a weight for each class", setting="loss.class_weights", got=len(weights),
                expected=f"{heat.shape[1]} numbers",
            )  # fmt: skip
        return torch.tensor(weights, device=heat.device)

    def _giou(self, maps: Outputs, targets: Targets, normalisers: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of the boxes from size and offset."""
        rows, size, offset = targets.rows, self.by_role["size"], self.by_role.get("offset")
        return box_giou_loss(
            size.decode(maps[size.output], NOWHERE),
            maps[offset.output] if offset else None,
            rows["cell"],
            size.decode(rows[size.name], NOWHERE),
            rows[offset.name] if offset else torch.full_like(rows[size.name], 0.5),
            rows["valid"],
            labels=rows["label"] if size.per == "class" else None,
            objects=normalisers["objects"],
        )

    def unflip(self, outputs: Outputs) -> Outputs:
        """Return the maps of N images from those of N images and their N mirror images."""
        joined = {}
        for head in self.heads:
            first, mirrored = outputs[head.output].chunk(2)
            joined[head.output] = head.unflip(first, mirrored.flip(3), self.keypoints)
        return joined

    def decode(self, outputs: Outputs, top_k: int, peaks: FindPeaks = decode_peaks) -> Instances:
        """Return the strongest `top_k` instances of each image."""
        heatmap, size, offset = (self.by_role.get(role) for role in ("heatmap", "size", "offset"))
        assert heatmap is not None
        assert size is not None
        stride = self.strides[0]
        found = peaks(outputs[heatmap.output], top_k)
        cell = cell_positions(found.cells, outputs[heatmap.output].shape[3])
        center = cell + (gather_cells(outputs[offset.output].float(), found.cells) if offset else 0.5)
        wh = size.read(outputs[size.output], found, Place(cell, center))
        place = Place(cell, center, wh)
        boxes, points = center_boxes(center, wh), self.by_role.get("keypoints")
        keypoints = None
        if points:
            keypoints = points.read(outputs[points.output], found, place)
            keypoints = self._at_peaks(keypoints, boxes, outputs, top_k, peaks) * stride
        return Instances(
            boxes * stride,
            found.scores,
            found.labels,
            keypoints,
            {head.name: head.read(outputs[head.output], found, place) for head in self.heads if head.role == "value"},
        )

    def _at_peaks(self, points: Tensor, boxes: Tensor, outputs: Outputs, top_k: int, peaks: FindPeaks) -> Tensor:
        """Return key points in cells, those at peaks of their heatmaps that have one."""
        heatmap, offset = self.by_role.get("keypoint_heatmap"), self.by_role.get("keypoint_offset")
        if heatmap is None:
            return points
        within = outputs[offset.output] if offset else None
        return move_to_peaks(points, boxes, *point_peaks(outputs[heatmap.output], within, top_k, peaks))

    def taught(self, targets: Targets) -> list[tuple[Objects, Tensor | None]]:
        """Return, for each image of a batch, the boxes that its targets stand for and the glow of its heatmap."""
        heat = targets.maps["heatmap"].amax(1)
        rows, size, offset = targets.rows, self.by_role["size"], self.by_role.get("offset")
        cell = cell_positions(rows["cell"], heat.shape[2])
        center = cell + (rows[offset.name] if offset else 0.5)
        wh = size.decode(rows[size.name], Place(cell, center))
        boxes, points = center_boxes(center, wh) * self.strides[0], self.by_role.get("keypoints")
        keypoints: Tensor | None = None
        if points:
            xy = HEADS[points.name].decode(rows[points.name], Place(cell, center, wh)) * self.strides[0]
            keypoints = torch.cat([xy, 2.0 * rows[f"{points.name}.mask"][..., ::2, None]], -1)
        found: list[tuple[Objects, Tensor | None]] = []
        for i, valid in enumerate(rows["valid"]):
            shown = None if keypoints is None else keypoints[i][valid].numpy()
            found.append((Objects(boxes[i][valid].numpy(), rows["label"][i][valid].numpy(), shown), heat[i]))
        return found


def choose_heads(names: Sequence[str], keypoints: KeypointSchema | None) -> tuple[Head, ...]:
    """Return the rows of these names. Raises ConfigError for unknown ones, and for heads that do not fit together."""
    for name in names:
        if name not in HEADS:
            raise ConfigError(
                f"no head is named {name!r}", setting="model.heads", nearest=nearest(name, HEADS),
                known=", ".join(HEADS),
            )  # fmt: skip
    heads = tuple(HEADS[name] for name in names)
    by_role = Counter(head.role for head in heads if head.role != "value")
    wrong = None
    for role in ("heatmap", "size"):
        if by_role[role] == 0:
            wrong = f"no {role}: a box needs one"
    for what, count in (*by_role.items(), *Counter(head.name for head in heads).items()):
        if count > 1:
            wrong = f"{count} heads for one {what}: " + ", ".join(h.name for h in heads if what in (h.role, h.name))
    for role, other in (("keypoint_heatmap", "keypoints"), ("keypoint_offset", "keypoint_heatmap")):
        if role in by_role and other not in by_role:
            wrong = f"{role} without {other}: it refines them"
    needing = [head.name for head in heads if head.needs_keypoints]
    if needing and keypoints is None:
        wrong = f"{', '.join(needing)} without key points in the data: their number and names are not known"
    if wrong:
        raise ConfigError("these heads do not fit together", setting="model.heads", got=", ".join(names), reason=wrong)
    return heads
