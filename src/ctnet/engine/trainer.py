"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctnet.config import Recipe
from ctnet.data.loader import Batch, EpochOrder, default_workers, explaining_deaths, raising, training_loader
from ctnet.data.sample import TrainingSamples
from ctnet.devices import OpenDevice
from ctnet.engine.precision import Precision
from ctnet.engine.profile import StepProfiler
from ctnet.engine.report import Log, NoLog, Reporter, RunLog
from ctnet.engine.samples import write_target_sheet
from ctnet.engine.schedule import lr_factor
from ctnet.engine.speed import Speed
from ctnet.engine.state import TrainingState, keep_numbered, save_state
from ctnet.engine.step import StepResult, Updater
from ctnet.engine.stop import Stopped, StopRequest
from ctnet.engine.validation import Validation
from ctnet.engine.world import World
from ctnet.errors import CtnetError, Diverged, Interrupted, ToldElsewhere
from ctnet.families import family_of
from ctnet.types import AnnotationSet
from ctnet.weights.containers.torch_file import write_zip


def training_samples(annotations: AnnotationSet, recipe: Recipe) -> TrainingSamples:
    """Return the samples that the recipe trains on. Raises ConfigError for heads that do not suit the data."""
    encoder = family_of(recipe, annotations.keypoints).encoder(len(annotations.categories))
    return TrainingSamples(
        annotations, recipe.data.image_size, encoder, recipe.augment, recipe.seed, recipe.data.max_objects
    )


def updates(batches: Iterator[Batch], order: EpochOrder, accumulate: int) -> Generator[list[Batch], None, None]:
    """Yield the batches of the order as the micro-batches of updates; no update crosses an epoch's end."""
    position = order.first_batch
    while True:
        wanted = min(accumulate, order.batches_per_epoch - position)
        yield [next(batches) for _ in range(wanted)]
        position = (position + wanted) % order.batches_per_epoch


@dataclass
class Trainer:
    """Takes a state from its step to the end of the schedule, leaving a trail in the run folder.

    All ranks go through it in step; rank 0 alone writes.
    """

    folder: Path
    recipe: Recipe
    data: Path
    state: TrainingState
    annotations: AnnotationSet
    device: OpenDevice
    precision: Precision
    peak_lr: float
    validation: Validation
    reporter: Reporter
    world: World
    profile: bool = False

    def __post_init__(self) -> None:
        train = self.recipe.train
        self.order = EpochOrder(
            len(self.annotations.images),
            train.batch_size * self.world.size,
            self.recipe.schedule.epochs,
            self.recipe.seed,
            rank=self.world.place.rank,
            ranks=self.world.size,
            fill=self.device.plugin.static_shapes,
        )
        self.steps_per_epoch = -(-self.order.batches_per_epoch // train.accumulate)
        self.planned_steps = self.steps_per_epoch * self.recipe.schedule.epochs
        self.total_steps = min(self.planned_steps, train.max_steps or self.planned_steps)
        measured = (*self.state.family.loss_parts, "images_per_s", "data_wait", *self.validation.scorer.names)
        self.columns = ("epoch", "step", "lr", "loss", *measured, "wall_s")
        self.updater = Updater(self.state, self.device, self.precision, self.world)
        self.speed = Speed()
        self.last_losses: dict[str, float] = {}
        self.saved_step = -1
        self.started = time.perf_counter()

    def run(self) -> None:
        """Train to the end.

        Raises Interrupted after saving when told to stop, Diverged when a loss or gradient is not finite, LoaderDied
        when a process that reads pictures was killed.
        """
        log = RunLog(self.folder, self.state.step, self.columns, self.reporter) if self.world.leads else NoLog()
        profiler = StepProfiler(self.folder / "profile" if self.profile and self.world.leads else None)
        # closed at once: loader processes that outlive the loop would be ended, and complain, at the exit
        with explaining_deaths(), StopRequest() as stop, closing(self._steps()) as steps:
            try:
                self._loop(log, profiler, stop, steps)
            finally:
                profiler.close(self.reporter)
                log.close()

    def _loop(self, log: Log, profiler: StepProfiler, stop: StopRequest, steps: Iterator[list[Batch]]) -> None:
        if self.state.evaluation_due:
            self._finish_epoch(log, stop, [])
        previous: tuple[StepResult, list[Batch]] | None = None
        since_log: list[dict[str, Tensor]] = []
        this_epoch: list[dict[str, Tensor]] = []
        while self.state.step < self.total_steps:
            with self.speed.waiting():
                batches = next(steps)
            self._draw_first(batches)
            pictures = self._pictures()
            lr = self.peak_lr * lr_factor(
                self.recipe.schedule, self.state.step, self.steps_per_epoch, self.planned_steps
            )
            result = self.updater.update(batches, lr)
            # Looking at the step before this one lets the device work ahead of the host.
            if previous is not None:
                self._refuse_non_finite(*previous, step=self.state.step)
            previous = (result, batches)
            self.state.step += 1
            self.speed.step(pictures)
            profiler.step()
            since_log.append(result.losses)
            this_epoch.append(result.losses)
            at_end = self.state.step == self.total_steps
            if self.state.step % self.recipe.train.log_every == 0 or at_end:
                self.device.plugin.synchronize()
                self._log_step(log, lr, since_log)
                since_log = []
            if self.state.step % self.steps_per_epoch == 0 or at_end:
                self._refuse_non_finite(*previous, step=self.state.step)
                previous = None
                self._finish_epoch(log, stop, this_epoch, lr)
                this_epoch = []
            self._save_between(previous)
            self._stop_if_told(stop, previous)

    def _steps(self) -> Generator[list[Batch], None, None]:
        """Yield the micro-batches of each update, from the state's step on."""
        accumulate = self.recipe.train.accumulate
        epoch, step = divmod(self.state.step, self.steps_per_epoch)
        order = replace(self.order, first_epoch=epoch, first_batch=step * accumulate)
        data = self.recipe.data
        samples = training_samples(self.annotations, self.recipe)
        workers = default_workers(self.world.place.local_size) if data.workers is None else data.workers
        plugin = self.device.plugin
        objects = data.max_objects if plugin.static_shapes else None
        loader = training_loader(samples, order, workers, pin_memory=plugin.pinned_memory, objects=objects)
        yield from updates(raising(loader), order, accumulate)

    def _pictures(self) -> int:
        """Return the number of pictures of the next update, over all ranks."""
        whole = self.order.batch_size * self.recipe.train.accumulate
        return min(whole, self.order.samples - self.state.step % self.steps_per_epoch * whole)

    def _draw_first(self, batches: list[Batch]) -> None:
        if self.world.leads and self.state.step < self.recipe.train.sample_batches:
            path = self.folder / "samples" / f"train_batch_{self.state.step}.jpg"
            write_target_sheet(path, self.state.family, batches[0], self.annotations.categories)

    def _log_step(self, log: Log, lr: float, losses: list[dict[str, Tensor]]) -> None:
        step = self.state.step
        self.last_losses = _means(losses)
        speed = self.speed.since_last_look()
        log.event("step", step=step, lr=lr, **self.last_losses, **speed)
        log.scalars("train", {**self.last_losses, "lr": lr, **speed}, step)
        values = {name: f"{value:.3f}" for name, value in self.last_losses.items()}
        values |= {
            "lr": f"{lr:.2g}",
            "images/s": f"{speed['images_per_s']:.1f}",
            "epoch": f"{(step - 1) // self.steps_per_epoch + 1}/{self.recipe.schedule.epochs}",
        }
        self.reporter.progress("train", step, self.total_steps, values)

    def _finish_epoch(
        self, log: Log, stop: StopRequest, losses: list[dict[str, Tensor]], lr: float | None = None
    ) -> None:
        """Evaluate if it is time to, save, and add the epoch's row to the metrics."""
        epoch = -(-self.state.step // self.steps_per_epoch)
        every = self.recipe.train.eval_every
        at_end = self.state.step == self.total_steps
        self.state.evaluation_due = at_end or (every > 0 and epoch % every == 0)
        row = {"epoch": epoch, "step": self.state.step, "lr": lr, **(_means(losses) if losses else {})}
        overall = self.speed.overall()
        row |= {"images_per_s": overall["images_per_s"], "data_wait": overall["data_wait"]}
        if self.state.evaluation_due:
            self.save()
            with self.speed.paused():
                numbers = self._evaluate(epoch, stop)
            self.state.evaluation_due = False
            row |= numbers
            if numbers:
                log.event("evaluation", step=self.state.step, epoch=epoch, **numbers)
                log.scalars("val", {k: v for k, v in numbers.items() if v is not None}, self.state.step)
            self.save()
        elif epoch % self.recipe.train.save_every == 0:
            self.save()
        log.epoch({**row, "wall_s": time.perf_counter() - self.started})

    def _evaluate(self, epoch: int, stop: StopRequest) -> dict[str, float | None]:
        try:
            return self.validation.run(self.state, self.folder, epoch, on_picture=stop.check)
        except Stopped:
            self._stop_if_told(stop, None, saved=True)
            raise

    def _save_between(self, previous: tuple[StepResult, list[Batch]] | None) -> None:
        every = self.recipe.train.save_every_steps
        if every and self.state.step % every == 0 and self.saved_step != self.state.step:
            if previous is not None:
                self._refuse_non_finite(*previous, step=self.state.step)
            self.save()

    def save(self) -> None:
        """Write `last.pt`, atomically, and keep numbered copies."""
        with self.speed.paused():
            self.world.average_(self.state.running_statistics())
            self.world.share(self._write_state)
            self.saved_step = self.state.step

    def _write_state(self) -> None:
        checkpoints = self.folder / "checkpoints"
        save_state(
            checkpoints / "last.pt",
            self.state,
            self.recipe,
            self.annotations.categories,
            str(self.data),
            self.device,
            self.world.size,
        )
        keep_numbered(checkpoints, self.state.step, self.recipe.train.keep)

    def _stop_if_told(
        self, stop: StopRequest, previous: tuple[StepResult, list[Batch]] | None, *, saved: bool = False
    ) -> None:
        number = self.world.largest(stop.number)
        if not number:
            return
        if previous is not None:
            self._refuse_non_finite(*previous, step=self.state.step)
        if not saved:
            self.save()
        raise self._told_once(
            Interrupted(
                f"stopped after step {self.state.step} of {self.total_steps}; everything is saved",
                signal_number=number,
                run=self.folder,
            )
        )

    def _told_once(self, error: CtnetError) -> CtnetError:
        """Return what this rank raises when all ranks run into the same error."""
        return error if self.world.leads else ToldElsewhere(error)

    def _refuse_non_finite(self, result: StepResult, batches: list[Batch], step: int) -> None:
        if bool(result.finite):
            return
        path = self.folder / "nonfinite" / f"step_{step:07d}.pt"
        everyones = [batch for rank in self.world.gather(batches) for batch in rank]
        if self.world.leads:
            write_zip(path, [{**batch._asdict(), "targets": batch.targets._asdict()} for batch in everyones])
        raise self._told_once(
            Diverged(
                f"step {step}: the loss or its gradient is not finite",
                losses=", ".join(f"{name} {float(value):g}" for name, value in result.losses.items()),
                pictures=", ".join(str(int(i)) for batch in everyones for i in batch.image_ids),
                batch=path,
                last_state=self.folder / "checkpoints" / "last.pt",
                hint="lower --lr, lengthen schedule.warmup, or use --amp off",
            )
        )

    def summary(self) -> dict[str, Any]:
        """Return what the run amounted to, for `summary.json`."""
        overall = self.speed.overall()
        train = self.recipe.train
        return {
            "schema": "ctnet.train/1",
            "network": self.recipe.name,
            "device": str(self.device.torch_device),
            "world_size": self.world.size,
            "precision": self.precision.sentence(),
            "batch_size": train.batch_size,
            "effective_batch": self.order.batch_size * train.accumulate,
            "epochs": self.state.step / self.steps_per_epoch,
            "steps": self.state.step,
            "images_per_s": overall["images_per_s"],
            "ms_per_step": overall["ms_per_step"],
            "data_wait": overall["data_wait"],
            "peak_memory_bytes": self.device.plugin.peak_memory(),
            "loss": self.last_losses.get("loss"),
            **{name: self.state.best.get(name) for name in self.validation.scorer.shown},
            "best_step": self.state.best.get("step"),
            "protocol": self.validation.protocol,
            "wall_s": time.perf_counter() - self.started,
            "run": str(self.folder),
        }


def _means(losses: list[dict[str, Tensor]]) -> dict[str, float]:
    names = losses[0]
    stacked = torch.stack([torch.stack([one[name] for name in names]) for one in losses]).mean(0)
    return dict(zip(names, stacked.cpu().tolist(), strict=True))
