"""One update of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ctnet.codec.pixels import normalise
from ctnet.config import Recipe
from ctnet.data.loader import Batch
from ctnet.devices import OpenDevice
from ctnet.engine.host_memory import keep_freed_memory
from ctnet.engine.precision import Precision
from ctnet.engine.processes.world import World, wrap_ddp
from ctnet.engine.state import TrainingState
from ctnet.losses import Counts, centernet_loss, count


class StepResult(NamedTuple):
    """What an update yielded, still on the device: nothing here has waited for it."""

    losses: dict[str, Tensor]  # total and parts, means over the micro-steps, of all ranks' pictures
    finite: Tensor  # bool


class Updater:
    """Runs updates: forward, loss, backward, clipping, optimizer, average. All ranks take the same ones."""

    def __init__(
        self, state: TrainingState, recipe: Recipe, device: OpenDevice, precision: Precision, world: World
    ) -> None:
        self._state = state
        self._world = world
        self._network = wrap_ddp(state.network, world, device, accumulates=recipe.train.accumulate > 1)
        self._recipe = recipe
        self._device = device
        self._precision = precision
        if device.torch_device.type == "cpu":
            keep_freed_memory()

    def update(self, batches: Sequence[Batch], lr: float) -> StepResult:
        """Take one optimizer step over micro-batches at the given rate. Moves nothing to the host."""
        state, optimizer = self._state, self._state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, 1):
            with self._gradients_stay_here() if number < len(batches) else nullcontext():
                total, parts = self._loss(batch)
                # the ranks' losses add up to that of the whole batch, where their gradients are averaged
                share = total * self._world.size / len(batches)
                state.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": total, **parts}.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(batches)
        sums = dict(zip(sums, self._world.sum(torch.stack(list(sums.values()))), strict=True))
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

    def _gradients_stay_here(self) -> AbstractContextManager[object]:
        network = self._network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

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
            outputs = self._network(x)
        stacks = outputs if isinstance(outputs, list) else [outputs]
        counts = Counts(*self._world.sum(torch.stack(count(batch.targets))))
        return centernet_loss(
            stacks,
            batch.targets,
            heatmap_weight=recipe.loss.heatmap,
            size_weight=recipe.loss.size,
            offset_weight=recipe.loss.offset,
            giou_weight=recipe.loss.giou,
            regression=recipe.loss.regression,
            rules=recipe.loss.targets,
            counts=counts,
        )

    def _clip(self) -> Tensor:
        limit = self._recipe.optimizer.clip_norm or float("inf")
        return torch.nn.utils.clip_grad_norm_(self._state.network.parameters(), limit)
