"""One update of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctnet.codec.pixels import normalise
from ctnet.config import Recipe
from ctnet.data.loader import Batch
from ctnet.devices import OpenDevice
from ctnet.engine.precision import Precision
from ctnet.engine.state import TrainingState
from ctnet.losses import centernet_loss


class StepResult(NamedTuple):
    """What an update yielded, still on the device: nothing here has waited for it."""

    losses: dict[str, Tensor]  # total and parts, means over the micro-steps
    finite: Tensor  # bool


class Updater:
    """Runs updates: forward, loss, backward, clipping, optimizer, average."""

    def __init__(self, state: TrainingState, recipe: Recipe, device: OpenDevice, precision: Precision) -> None:
        self._state = state
        self._recipe = recipe
        self._device = device
        self._precision = precision

    def update(self, batches: Sequence[Batch], lr: float) -> StepResult:
        """Take one optimizer step over micro-batches at the given rate. Moves nothing to the host."""
        state, optimizer = self._state, self._state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            total, parts = self._loss(batch)
            state.scaler.scale(total / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": total, **parts}.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(batches)
        finite = sums["loss"].isfinite()
        state.scaler.unscale_(optimizer)
        norm = self._clip()
        if not state.scaler.is_enabled():  # the scaler looks for itself, skips the update and lowers its scale
            finite = finite & norm.isfinite()
        state.scaler.step(optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.network)
        return StepResult(sums, finite)

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        recipe = self._recipe
        batch = batch.to(self._device.torch_device)
        x = normalise(
            batch.images,
            recipe.data.mean,
            recipe.data.std,
            color_order=recipe.data.color_order,
            lighting=batch.lighting,
        )
        with self._precision.autocast():
            outputs = self._state.network(x)
        stacks = outputs if isinstance(outputs, list) else [outputs]
        return centernet_loss(
            stacks,
            batch.targets,
            heatmap_weight=recipe.loss.heatmap,
            size_weight=recipe.loss.size,
            offset_weight=recipe.loss.offset,
            regression=recipe.loss.regression,
            rules=recipe.loss.targets,
        )

    def _clip(self) -> Tensor:
        limit = self._recipe.optimizer.clip_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(self._state.network.parameters(), limit)
