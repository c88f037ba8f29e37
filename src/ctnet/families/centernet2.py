"""Centres on the levels of a pyramid, alone or as proposals of second stages (Zhou et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctnet.codec import pyramid
from ctnet.codec.boxes import clip_boxes
from ctnet.config import CenterNet2Loss, CenterNet2Model, Evaluation, Recipe
from ctnet.errors import ConfigError
from ctnet.families import cascade
from ctnet.families.family import Family, FindPeaks, Keep, Outputs, Sum, alone
from ctnet.families.found import (
    TIES,
    Found,
    Limits,
    level_candidates,
    select_by,
    select_detections,
    strongest,
    suppress,
    suppress_by,
)
from ctnet.losses import center_focal, side_giou_loss
from ctnet.models.centernet2 import CenterNet2, Dense, PreparedCenterNet2, build_centernet2
from ctnet.ops import decode_peaks
from ctnet.types import Instances, KeypointSchema, Objects, Targets

_MORE_CENTERS, _FITS = 9, 0.2  # of an object, at most, and the loss of a box that fits well


@dataclass(frozen=True)
class PyramidEncoder:
    """Targets of one image: of its cells `heat`, `box` and `learns`, of its objects box, label, and their cells."""

    strides: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]

    def __call__(self, objects: Objects, input_hw: tuple[int, int]) -> Targets:
        """Return the targets of objects in input pixels."""
        rows = self.rows(objects, input_hw)
        boxes = torch.from_numpy(rows["object"])
        cells = pyramid.cells_of(pyramid.level_sizes(input_hw, self.strides), self.strides)
        found = pyramid.assign(boxes, cells, self.ranges)
        maps = {"heat": found.heat, "box": found.box, "learns": found.learns}
        rows |= {"cell": found.center.numpy(), "center": found.positive.numpy()}
        return Targets({name: values.numpy() for name, values in maps.items()}, rows)

    def rows(self, objects: Objects, input_hw: tuple[int, int]) -> dict[str, Any]:
        """Return the objects, clipped to the input; those without an area are left out."""
        height, width = input_hw
        boxes = np.clip(objects.boxes_xyxy, 0, np.array([width, height, width, height], np.float32))
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, labels = boxes[inside].astype(np.float32), objects.labels[inside]
        return {"object": boxes, "label": labels, "valid": np.ones(len(labels), np.bool_)}


class CenterNet2Family(Family):
    """One stage with a heatmap per class, or proposals and second stages."""

    decodes_anywhere = False

    def __init__(self, recipe: Recipe, keypoints: KeypointSchema | None = None) -> None:
        super().__init__(recipe, keypoints)
        model, loss = recipe.model, recipe.loss
        assert isinstance(model, CenterNet2Model)
        assert isinstance(loss, CenterNet2Loss)
        self.model, self.loss, self.strides = model, loss, model.strides
        levels = range(3, 3 + model.levels)
        self.output_names = tuple(f"{what}_p{level}" for what in ("heatmap", "box") for level in levels)
        self.instance_names = ("boxes", "scores", "labels")
        self.beyond_raw = "the second stages, which pool boxes after NMS" if model.roi_stages else ""
        self.loss_weights = {"center": loss.center, "background": loss.background, "box": loss.box}
        for stage in range(1, model.roi_stages + 1):
            self.loss_weights |= {f"roi{stage}_class": loss.roi_class, f"roi{stage}_box": loss.roi_box}

    def build(self, num_classes: int) -> nn.Module:
        """Return the network, randomly initialised."""
        return build_centernet2(self.model, num_classes)

    def encoder(self, num_classes: int) -> PyramidEncoder:
        """Return what makes the targets."""
        return PyramidEncoder(self.strides, self.loss.ranges(self.model.levels))

    def class_layers(self, network: nn.Module) -> Iterator[tuple[str, int, int]]:
        """Yield the heatmap of one stage, or the classes of each second stage, behind which is the background."""
        if not self.model.roi_stages:
            yield "head.heatmap", 1, 0
        for stage in range(self.model.roi_stages):
            yield f"roi.{stage}.classes", 1, 1

    def prepare(self, network: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """Return the network with the first stage and each second one prepared for themselves."""
        return PreparedCenterNet2(network, prepare)  # type: ignore[arg-type]

    def normalisers(self, targets: Targets) -> dict[str, Tensor]:
        """Return the centres on all levels, and the cells that learn a box."""
        return {
            "centers": targets.rows["center"].sum().float(),
            "cells": targets.maps["learns"].sum().float(),
        }

    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Targets,
        normalisers: Mapping[str, Tensor],
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        sum_over_ranks: Sum = alone,
    ) -> dict[str, Tensor]:
        """Return the parts of the loss; second stages are divided by the boxes of all ranks."""
        assert isinstance(network, CenterNet2)
        with autocast():
            dense = network.first(images)
        parts = self.compare(dense, targets, normalisers, sum_over_ranks)
        if not self.model.roi_stages:
            return parts
        image_hw, classes = _whole(images), network.num_classes
        with torch.no_grad():
            matched = self.drawn(self.proposals(dense, training=True), targets, classes)
        found = cascade.teach(
            list(network.roi), partial(self._pool, dense), matched, partial(self._match, targets, classes), image_hw,
            autocast,
        )  # fmt: skip
        counts = sum_over_ranks(torch.stack([stage.boxes for stage in found])).clamp(min=1)
        for number, (stage, count) in enumerate(zip(found, counts, strict=True), 1):
            parts |= {f"roi{number}_class": stage.classes / count, f"roi{number}_box": stage.box / count}
        return parts

    def compare(
        self, dense: Dense, targets: Targets, normalisers: Mapping[str, Tensor], sum_over_ranks: Sum = alone
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of the first stage."""
        maps, rows = targets
        heatmaps, sides, _ = dense
        logits = torch.cat([level.flatten(2) for level in heatmaps], 2)
        predicted = torch.cat([level.flatten(2) for level in sides], 2).transpose(1, 2)
        learns = maps["learns"]
        where = learns.unsqueeze(-1)  # boxes elsewhere have no sides to divide by
        apart = side_giou_loss(torch.where(where, predicted, 1), torch.where(where, maps["box"], 1))
        heat, cells, counts = maps["heat"].unsqueeze(1), rows["cell"], rows["center"]
        divisor = normalisers["centers"]
        if self.model.roi_stages == 0:
            heat = self._class_heat(targets, heatmaps, logits.shape[1])
            if self.loss.more_centers:
                cells, counts = self._more_centers(targets, heatmaps, predicted.detach())
                divisor = sum_over_ranks(counts.sum().float())
            cells = cells + rows["label"].view(*rows["label"].shape, *[1] * (cells.dim() - 2)) * logits.shape[2]
        center, background = center_focal(
            logits, heat, cells.flatten(1), counts.flatten(1), ignore_above=self.loss.ignore_above
        )  # fmt: skip
        divisor = divisor.clamp(min=1)
        box = (apart * learns).sum() / normalisers["cells"].clamp(min=1)
        return {"center": center / divisor, "background": background / divisor, "box": box}

    def _cells(self, heatmaps: Sequence[Tensor]) -> pyramid.Cells:
        sizes = [(level.shape[2], level.shape[3]) for level in heatmaps]
        return pyramid.cells_of(sizes, self.strides, heatmaps[0].device)

    def _class_heat(self, targets: Targets, heatmaps: Sequence[Tensor], classes: int) -> Tensor:
        """Return the heat (B,C,M) of each class."""
        boxes, valid, labels = (targets.rows[name] for name in ("object", "valid", "label"))
        distance = pyramid.relative_distance(boxes, self._cells(heatmaps))
        each = torch.where(valid.unsqueeze(-1), pyramid.bump(distance), 0)
        index = labels.unsqueeze(-1).expand_as(each)
        return each.new_zeros(len(each), classes, each.shape[2]).scatter_reduce(1, index, each, "amax")

    def _more_centers(
        self, targets: Targets, heatmaps: Sequence[Tensor], predicted: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return (B,N,L,9) cells around the centres, and which of them hold the object, too.

        These are the centre itself, on the object's levels, and cells on any level whose boxes fit well, of an object
        fewer than nine.
        """
        boxes, valid = targets.rows["object"], targets.rows["valid"]
        flat, sides, inside = pyramid.neighbourhood(boxes, self._cells(heatmaps))
        inside = inside & valid[:, :, None, None]
        there = predicted.gather(1, flat.flatten(1).unsqueeze(-1).expand(-1, -1, 4)).view_as(sides)
        apart = side_giou_loss(
            torch.where(inside.unsqueeze(-1), there, 1), sides.clamp(min=0).where(inside.unsqueeze(-1), 1)
        )
        apart = torch.where(inside, apart, torch.inf)
        own = torch.zeros_like(inside)
        own[..., 4] = targets.rows["center"] & inside[..., 4]
        apart = torch.where(own, 0, apart)
        limit = apart.flatten(2).kthvalue(_MORE_CENTERS, 2).values.clamp(max=_FITS)
        return flat, apart < limit[:, :, None, None]

    def proposals(self, dense: Dense, *, training: bool = False) -> Found:
        """Return the proposals of the first stage, strongest first; scores are roots of probabilities."""
        loss, limits = self.loss, self._limits(0)
        if training:
            limits = limits._replace(candidates=loss.candidates, most=loss.proposals)
        heatmaps, sides, _ = dense
        found = level_candidates(heatmaps, sides, self.strides, limits)
        found = suppress(
            found._replace(scores=found.scores.sqrt()), limits.nms, limits.most, static=self.static_shapes
        )  # fmt: skip
        return strongest(found, limits.most, ties=TIES, static=self.static_shapes)

    def drawn(self, found: Found, targets: Targets, classes: int) -> cascade.Matched:
        """Return the boxes that second stages are trained on, drawn from proposals and the objects themselves."""
        rows = targets.rows
        boxes = torch.cat([found.boxes, rows["object"]], 1)
        exists = torch.cat([found.scores > 0, rows["valid"]], 1)
        matched = self._match(targets, classes, boxes, exists, 0)
        return cascade.sample(matched, self.loss.rois, self.loss.roi_positives, classes)

    def _match(self, targets: Targets, classes: int, boxes: Tensor, exists: Tensor, stage: int) -> cascade.Matched:
        objects, labels, valid = (targets.rows[name] for name in ("object", "label", "valid"))
        return cascade.match(boxes, exists, objects, labels, valid, self.loss.roi_ious[stage], classes)

    def _pool(self, dense: Dense, boxes: Tensor) -> Tensor:
        return cascade.pool(dense[2], self.strides, boxes, self.model.roi_size)

    def detect(
        self, network: nn.Module, images: Tensor, settings: Evaluation, image_hw: Tensor | None = None
    ) -> Outputs | Instances:
        """Return the detections; with `settings.flip` those in the mirror image are merged by NMS."""
        if not isinstance(network, (CenterNet2, PreparedCenterNet2)):  # an exported file
            return super().detect(network, images, settings, image_hw)
        run = partial(self._detect, network, settings=settings)
        image_hw = _whole(images) if image_hw is None else image_hw
        found = run(images, image_hw)
        if settings.flip:
            there = run(mirrored(images, image_hw), image_hw)
            x1, y1, x2, y2 = there.boxes.unbind(-1)
            width = image_hw[:, 1:].to(x1)
            there = there._replace(boxes=torch.stack([width - x2, y1, width - x1, y2], -1))
            both = Found(*(torch.cat(pair, 1) for pair in zip(found, there, strict=True)))
            found = strongest(
                suppress(both, self._last_nms, static=self.static_shapes), settings.top_k, static=self.static_shapes
            )
        return Instances(*found)

    @property
    def _last_nms(self) -> float:
        return self.model.nms if self.model.roi_stages else self.model.proposal_nms

    def _detect(
        self, network: CenterNet2 | PreparedCenterNet2, images: Tensor, image_hw: Tensor, settings: Evaluation
    ) -> Found:
        dense: Dense = network.first(images)
        if not self.model.roi_stages:
            return self._one_stage(*dense[:2], image_hw, settings.top_k)
        found = self.proposals(dense)
        boxes, scores = cascade.refine(network.roi, partial(self._pool, dense), found, image_hw)
        return select_detections(
            boxes, scores, settings.score_floor, self.model.nms, settings.top_k, static=self.static_shapes
        )

    def _limits(self, count: int) -> Limits:
        """Return those of inference; `count` is that of one stage."""
        model = self.model
        most = model.proposals if model.roi_stages else count
        return Limits(model.score_floor, model.candidates, model.proposal_nms, most)

    def _one_stage(
        self, heatmaps: Sequence[Tensor], sides: Sequence[Tensor], image_hw: Tensor | None, count: int
    ) -> Found:
        limits = self._limits(count)
        found = suppress(
            level_candidates(heatmaps, sides, self.strides, limits), limits.nms, count, static=self.static_shapes
        )
        found = strongest(found, count, ties=TIES, static=self.static_shapes)
        return found if image_hw is None else found._replace(boxes=clip_boxes(found.boxes, image_hw))

    def exported(
        self, network: nn.Module, images: Tensor, settings: Evaluation, peaks: FindPeaks, keep: Keep
    ) -> Instances:
        """Return the instances in a graph that is traced for other runtimes."""
        assert isinstance(network, PreparedCenterNet2)
        model, image_hw = self.model, _whole(images)
        heatmaps, sides, levels = network.first(images)
        two = bool(model.roi_stages)
        found = level_candidates(heatmaps, sides, self.strides, self._limits(settings.top_k))
        found = found._replace(scores=found.scores.sqrt()) if two else found
        most = min(model.proposals if two else settings.top_k, found.scores.shape[1])
        found = suppress_by(keep, found, heatmaps[0].shape[1], model.proposal_nms, most)
        found = found.take(found.scores.topk(most).indices)
        if not two:
            return Instances(*found._replace(boxes=clip_boxes(found.boxes, image_hw)))
        dense = heatmaps, sides, [level.float() for level in levels]
        boxes, scores = cascade.refine(network.roi, partial(self._pool, dense), found, image_hw)
        return Instances(*select_by(keep, boxes, scores, settings.score_floor, model.nms, settings.top_k))

    def unflip(self, outputs: Outputs) -> Outputs:
        """Raise ConfigError: raw maps of strides up to 128 do not lie on each other after mirroring."""
        family = self.model.family
        raise ConfigError("exported files of this family have no flip test", family=family, hint="--no-flip")

    def decode(self, outputs: Outputs, top_k: int, peaks: FindPeaks = decode_peaks) -> Instances:
        """Return the strongest instances of each image from raw maps. Raises ConfigError with second stages."""
        if self.model.roi_stages:
            raise ConfigError(
                "the file holds the first of two stages, and boxes come out of the second",
                hint="ctnet export onnx and openvino write both",
            )  # fmt: skip
        maps = [outputs[name] for name in self.output_names]
        half = len(maps) // 2
        return Instances(*self._one_stage(maps[:half], maps[half:], None, top_k))

    def taught(self, targets: Targets) -> list[tuple[Objects, Tensor | None]]:
        """Return, for each image of a batch, the objects that it is taught and the glow of the finest level."""
        rows, heat = targets.rows, targets.maps["heat"]
        height, width = pyramid.level_sizes(self.recipe.data.image_size, self.strides)[0]
        found: list[tuple[Objects, Tensor | None]] = []
        for i, valid in enumerate(rows["valid"]):
            objects = Objects(rows["object"][i][valid].numpy(), rows["label"][i][valid].numpy())
            found.append((objects, heat[i, : height * width].view(height, width)))
        return found


def _whole(images: Tensor) -> Tensor:
    """Return (B,2), height and width of images that fill their canvas."""
    return torch.stack([torch.full((images.shape[0],), side, device=images.device) for side in images.shape[2:]], 1)


def mirrored(images: Tensor, image_hw: Tensor) -> Tensor:
    """Return images (B,3,H,W) mirrored within their own widths, so that padding stays at the right."""
    column = torch.arange(images.shape[3], device=images.device)
    width = image_hw[:, 1:].long()
    source = torch.where(column < width, width - 1 - column, column)
    return images.gather(3, source[:, None, None].expand_as(images))
