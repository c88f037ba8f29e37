"""One update of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ctnet.codec.pixels import normalise
from ctnet.data.loader import Batch
from ctnet.devices import OpenDevice
from ctnet.engine.host_memory import keep_freed_memory
from ctnet.engine.precision import Precision
from ctnet.engine.processes.world import World, wrap_ddp
from ctnet.engine.state import TrainingState
from ctnet.families import Family
from ctnet.types import Targets


class StepResult(NamedTuple):
    """The results of an update, still on the device, without synchronisation."""

    losses: dict[str, Tensor]  # total and parts, means over the micro-steps, of all ranks' images
    finite: Callable[[], Tensor]  # bool: whether loss and gradient are numbers; waits for this update alone


class TrainingStep(nn.Module):
    """Maps a batch to the parts of the loss: one module, so that DDP wraps the network and the loss."""

    def __init__(self, family: Family, network: nn.Module, precision: Precision, world: World) -> None:
        super().__init__()
        self.family = family
        self.network = network
        self.precision = precision
        self.world = world

    def forward(self, images: Tensor, targets: Targets, normalisers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `Family.losses` returns."""
        return self.family.losses(
            self.network, images, targets, normalisers, self.precision.autocast, self.world.sum
        )  # fmt: skip


class Updater:
    """Runs updates: forward, loss, backward, clipping, optimizer, average. All ranks take the same ones."""

    def __init__(self, state: TrainingState, device: OpenDevice, precision: Precision, world: World) -> None:
        self._state = state
        self._world = world
        self._recipe = state.family.recipe
        step = TrainingStep(state.family, state.network, precision, world)
        self._step = wrap_ddp(step, world, device, accumulates=self._recipe.train.accumulate > 1)
        self._device = device
        self._static_scale = precision.static_scale
        if device.torch_device.type == "cpu":
            keep_freed_memory()

    def update(self, batches: Sequence[Batch], lr: float) -> StepResult:
        """Take one optimizer step over micro-batches at the given rate. Moves nothing to the host."""
        state, optimizer = self._state, self._state.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        scaled = state.scaler.is_enabled()
        statistics = [(now, now.clone()) for now in state.network_statistics()] if scaled else []
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
        state.scaler.unscale_(optimizer)
        finite = sums["loss"].isfinite() & self._clip().isfinite()
        state.scaler.step(optimizer)  # not where a gradient overflowed
        state.scaler.update(self._static_scale)
        for now, before in statistics:  # of an overflow they would keep an infinity for good
            now.copy_(torch.where(finite, now, before))
        if state.average is not None:
            state.average.update(state.network)
        return StepResult(sums, self._device.plugin.fetch(finite))

    def _gradients_stay_here(self) -> AbstractContextManager[object]:
        step = self._step
        return step.no_sync() if isinstance(step, DistributedDataParallel) else nullcontext()

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        family, data = self._state.family, self._recipe.data
        batch = batch.to(self._device.torch_device)
        images = normalise(
            batch.images, data.mean, data.std, color_order=data.color_order, lighting=batch.lighting
        )  # fmt: skip
        counts = family.normalisers(batch.targets)
        counts = dict(zip(counts, self._world.sum(torch.stack(list(counts.values()))), strict=True))
        parts = self._step(images, batch.targets, counts)
        return family.total(parts), parts

    def _clip(self) -> Tensor:
        settings, parameters = self._recipe.optimizer, list(self._state.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm or float("inf"))
        if settings.clip_value:
            torch.nn.utils.clip_grad_value_(parameters, settings.clip_value)
        return norm
