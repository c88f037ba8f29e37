"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT
from typing import Any

import torch
from torch import Tensor

from ctnet.config import Data, Recipe
from ctnet.data.loader import Batch, EpochOrder, explaining_deaths, raising, training_loader, worker_count
from ctnet.data.repeat import repeat_factors
from ctnet.data.sample import TrainingSamples
from ctnet.devices import OpenDevice
from ctnet.engine.host_memory import peak_memory
from ctnet.engine.precision import Precision
from ctnet.engine.processes.world import World
from ctnet.engine.profile import ProfilePlan, StepProfiler
from ctnet.engine.record import LossSums
from ctnet.engine.report import Log, NoLog, Reporter, RunLog
from ctnet.engine.run_page import Progress, write_run_page
from ctnet.engine.samples import write_target_sheet
from ctnet.engine.schedule import lr_factor
from ctnet.engine.speed import Speed
from ctnet.engine.state import TrainingState, keep_numbered, save_state
from ctnet.engine.step import StepResult, Updater
from ctnet.engine.stop import Stopped, StopRequest
from ctnet.engine.validation import Validation
from ctnet.errors import CtnetError, Diverged, Interrupted, ReportedByOtherRank
from ctnet.families import family_of
from ctnet.types import AnnotationSet
from ctnet.weights.containers.torch_file import write_zip


def training_samples(annotations: AnnotationSet, recipe: Recipe) -> TrainingSamples:
    """Return the samples that the recipe trains on. Raises ConfigError for heads that do not suit the data."""
    encoder = family_of(recipe, annotations.keypoints).encoder(len(annotations.categories))
    data = recipe.data
    return TrainingSamples(
        annotations,
        data.image_size,
        encoder,
        recipe.augment,
        recipe.seed,
        data.max_objects,
        data.value_range,
        skip_bad=data.on_bad_image == "skip",
        canvas=mean_color(data) if recipe.augment.crop == "short_side" else (0, 0, 0),
        crowd=data.crowd,
    )


def mean_color(data: Data) -> tuple[int, int, int]:
    """Return the BGR colour that is normalised to about 0."""
    first, second, third = (min(255, max(0, round(255 * mean))) for mean in data.mean)
    return (third, second, first) if data.color_order == "rgb" else (first, second, third)


def updates(batches: Iterator[Batch], order: EpochOrder, accumulate: int) -> Generator[list[Batch], None, None]:
    """Yield the batches of the order as the micro-batches of updates; no update crosses an epoch's end."""
    position = order.first_batch
    while True:
        wanted = min(accumulate, order.batches_per_epoch - position)
        yield [next(batches) for _ in range(wanted)]
        position = (position + wanted) % order.batches_per_epoch


@dataclass
class Trainer:
    """Trains a state from its step to the end of the schedule and writes the run folder.

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
    profile: ProfilePlan | None = None

    def __post_init__(self) -> None:
        train = self.recipe.train
        self.share = train.images_per_process(self.world.size)
        factors = repeat_factors(self.annotations, self.recipe.data.repeat_threshold)
        images = len(self.annotations.images)
        self.order = EpochOrder(
            images if factors is None else round(factors.sum()),
            self.share * self.world.size,
            self.recipe.schedule.epochs,
            self.recipe.seed,
            rank=self.world.rank_info.rank,
            ranks=self.world.size,
            fill=self.device.plugin.static_shapes,
            shuffle=self.recipe.data.shuffle,
            factors=factors,
        )
        self.steps_per_epoch = -(-self.order.batches_per_epoch // train.accumulate)
        self.planned_steps = self.steps_per_epoch * self.recipe.schedule.epochs
        self.total_steps = min(self.planned_steps, train.max_steps or self.planned_steps)
        measured = (*self.state.family.loss_parts, "images_per_s", "data_wait", *self.validation.scorer.names)
        self.columns = ("epoch", "step", "lr", "loss", *measured, "wall_s")
        self.updater = Updater(self.state, self.device, self.precision, self.world)
        self.speed = Speed()
        self.log: Log = NoLog()
        self.unchecked: tuple[StepResult, list[Batch]] | None = None
        self.overflows = 0  # in a row
        self.saved_step = -1
        self.skipped: set[int] = set()  # ids of images of this rank that could not be read
        self.started = self._process_started = time.perf_counter()
        self._first_step = self.state.step

    def run(self) -> None:
        """Train to the end.

        Raises Interrupted after saving on a stop request, Diverged when a loss or gradient is not finite, LoaderDied
        when a process that reads images was killed.
        """
        self.started -= self.state.record.wall_s
        self._first_step = self.state.step  # of a run that is resumed
        self.saved_step = self.state.step or -1
        if self.world.leads:
            if self.state.step:  # the run may have been killed between the state and its copy
                keep_numbered(self.folder / "checkpoints", self.state.step, self.recipe.train.keep)
            self.log = RunLog(self.folder, self.state.record, self.state.step, self.columns, self.reporter)
        profiler = StepProfiler(self.profile if self.world.leads else None, self.folder, self.device.plugin)
        # close at once: loader processes alive at exit are killed, with warnings
        with explaining_deaths(), StopRequest() as stop, closing(self._steps()) as steps:
            try:
                self._loop(profiler, stop, steps)
            except KeyboardInterrupt:
                raise self._told_once(self._left_at_once(stop.number or SIGINT)) from None
            finally:
                profiler.close(self.reporter)
                self.log.close()

    def _loop(self, profiler: StepProfiler, stop: StopRequest, steps: Iterator[list[Batch]]) -> None:
        if self.state.evaluation_due:
            self._evaluate(stop)
        self.reporter.progress("train", self.state.step, self.total_steps, {})
        while self.state.step < self.total_steps:
            with self.speed.waiting():
                batches = next(steps)
            self._note_skipped(batches)
            self._draw_first(batches)
            images = self._images()
            lr = self.peak_lr * lr_factor(
                self.recipe.schedule, self.state.step, self.steps_per_epoch, self.planned_steps
            )
            result = self.updater.update(batches, lr)
            self._check_last()  # the step before: meanwhile the device computes this one
            self.unchecked = (result, batches)
            self.state.step += 1
            self.speed.step(images)
            profiler.step()
            self.state.record.add_step(result.losses)
            at_end = self.state.step == self.total_steps
            if self.state.step % self.recipe.train.log_every == 0 or at_end:
                self.device.plugin.synchronize()
                self._check_last()
                self._log_step(lr)
            else:
                self.reporter.progress("train", self.state.step, self.total_steps, {})
            if self.state.step % self.steps_per_epoch == 0 or at_end:
                self._check_last()
                self._finish_epoch(stop, lr)
            self._save_between()
            self._stop_if_told(stop)

    def _steps(self) -> Generator[list[Batch], None, None]:
        """Yield the micro-batches of each update, from the state's step on."""
        accumulate = self.recipe.train.accumulate
        epoch, step = divmod(self.state.step, self.steps_per_epoch)
        order = replace(self.order, first_epoch=epoch, first_batch=step * accumulate)
        data = self.recipe.data
        samples = training_samples(self.annotations, self.recipe)
        workers = worker_count(data.workers, self.world.rank_info.local_size)
        plugin = self.device.plugin
        objects = data.max_objects if plugin.static_shapes else None
        loader = training_loader(samples, order, workers, pin_memory=plugin.pinned_memory, objects=objects)
        yield from updates(raising(loader), order, accumulate)

    def _images(self) -> int:
        """Return the number of images of the next update, over all ranks."""
        whole = self.order.batch_size * self.recipe.train.accumulate
        return min(whole, self.order.samples - self.state.step % self.steps_per_epoch * whole)

    def _note_skipped(self, batches: list[Batch]) -> None:
        for batch in batches:
            skipped = set(batch.wanted_ids[batch.wanted_ids != batch.image_ids].tolist()) - self.skipped
            self.skipped |= skipped
            for path in (image.path for image in self.annotations.images if skipped and image.id in skipped):
                self.reporter.message(f"warning: an image cannot be read, another one takes its place: {path}")

    def _draw_first(self, batches: list[Batch]) -> None:
        if self.world.leads and self.state.step < self.recipe.train.sample_batches:
            path = self.folder / "samples" / f"train_batch_{self.state.step}.jpg"
            write_target_sheet(path, self.state.family, batches[0], self.annotations.categories)

    def _log_step(self, lr: float) -> None:
        step = self.state.step
        losses = self.state.record.take_logged()
        speed = self.speed.since_last_look()
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        place = {"epoch": epoch + 1, "epoch_percent": round(100 * (within + 1) / self.steps_per_epoch, 2)}
        scaler = self.state.scaler
        scaled = {"scale": scaler.get_scale(), "overflow": self.state.record.overflows} if scaler.is_enabled() else {}
        extra = {"seconds_left": self._seconds_left(), "memory_bytes": peak_memory(self.device)}
        self.log.event("step", step=step, **place, lr=lr, **losses, **scaled, **speed, **extra)
        self.log.scalars("train", {**losses, "lr": lr, **scaled, **speed}, step)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        values = {
            "epoch": f"{epoch + 1}/{self.recipe.schedule.epochs}",
            "loss": shown.pop("loss", "overflow"),  # without a loss every update was skipped
            "images/s": f"{speed['images_per_s']:.1f}",
            **shown,
            "lr": f"{lr:.2g}",
        }
        self.reporter.progress("train", step, self.total_steps, values)

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return -(-self.state.step // self.steps_per_epoch)

    def _finish_epoch(self, stop: StopRequest, lr: float) -> None:
        """Add the epoch's row to the metrics, save, and evaluate if due."""
        epoch, step, record = self._epoch, self.state.step, self.state.record
        record.collect()
        overall = self.speed.overall()
        speeds = {name: overall[name] for name in ("images_per_s", "data_wait")}
        record.begin_row(epoch, step=step, lr=lr, **record.this_epoch.means(), **speeds, wall_s=self._wall_s())
        if step % self.steps_per_epoch == 0:  # not when max_steps ends it, since a resumed run goes on in it
            record.this_epoch = LossSums()
        every = self.recipe.train.eval_every
        self.state.evaluation_due = step == self.total_steps or (every > 0 and epoch % every == 0)
        if self.state.evaluation_due or epoch % self.recipe.train.save_every == 0:
            self.save()
        self.log.epochs()
        self.write_page()
        if self.state.evaluation_due:
            self._evaluate(stop)

    def _evaluate(self, stop: StopRequest) -> None:
        """Evaluate, add the numbers to the epoch's row, and save."""
        epoch = self._epoch
        with self.speed.paused():
            try:
                with self._averaged_statistics():
                    numbers = self.validation.run(self.state, self.folder, epoch, on_image=stop.check)
            except Stopped:
                self._stop_if_told(stop, saved=True)
                raise
        self.state.evaluation_due = False
        self.state.record.complete_row(epoch, step=self.state.step, **numbers, wall_s=self._wall_s())
        if numbers:
            number = self.validation.scorer.per_class[0]
            classes = {name: row[number] for name, row in self.validation.per_class.items()}
            self.log.event("evaluation", step=self.state.step, epoch=epoch, **numbers, per_class=classes)
            self.log.scalars("val", {k: v for k, v in numbers.items() if v is not None}, self.state.step)
        self.save()
        self.log.epochs()
        self.write_page()

    def write_page(self) -> None:
        """Write `index.html` of the run on rank 0."""
        if not self.world.leads:
            return
        progress = Progress(
            self.state.step, self.total_steps, self._epoch, self.recipe.schedule.epochs, self._wall_s(),
            self._seconds_left(),
        )  # fmt: skip
        with self.speed.paused():
            write_run_page(
                self.folder, self.recipe.name, str(self.data), progress, self.state.record.rows,
                self.state.family.loss_parts, self.validation.scorer, self.state.best, self.validation.per_class,
            )  # fmt: skip

    def _seconds_left(self) -> float | None:
        """Return the seconds to the end at the speed of this process so far, evaluations included."""
        done = self.state.step - self._first_step
        if done <= 0:
            return None
        seconds = time.perf_counter() - self._process_started
        return seconds / done * (self.total_steps - self.state.step)

    def _wall_s(self) -> float:
        return time.perf_counter() - self.started

    def _save_between(self) -> None:
        every = self.recipe.train.save_every_steps
        if every and self.state.step % every == 0 and self.saved_step != self.state.step:
            self._check_last()
            self.save()

    def save(self) -> None:
        """Write `last.pt`, atomically, and keep numbered copies; nothing where the run is to leave no checkpoints."""
        if not self.recipe.train.checkpoints:
            return
        with self.speed.paused(), self._averaged_statistics() as statistics:
            self.world.broadcast_from_rank0(lambda: self._write_state(statistics))
            self.saved_step = self.state.step

    @contextmanager
    def _averaged_statistics(self) -> Iterator[list[Tensor]]:
        """Give the network the ranks' mean running statistics while the block lasts, and the block each rank's own.

        Afterwards each rank has its own again, so that training does not depend on what was saved or evaluated.
        """
        if self.world.size == 1:
            yield []
            return
        statistics = self.state.running_statistics()
        own = torch.cat([tensor.flatten() for tensor in statistics])
        everyones = self.world.gather(own.cpu())
        self.world.average_(statistics)
        try:
            yield everyones
        finally:
            self.state.set_statistics(own)

    def _write_state(self, statistics: list[Tensor]) -> None:
        checkpoints, record = self.folder / "checkpoints", self.state.record
        record.files, record.wall_s = self.log.sizes(), self._wall_s()
        save_state(
            checkpoints / "last.pt",
            self.state,
            self.recipe,
            self.annotations.categories,
            str(self.data),
            self.device,
            statistics,
        )
        keep_numbered(checkpoints, self.state.step, self.recipe.train.keep)

    def _stop_if_told(self, stop: StopRequest, *, saved: bool = False) -> None:
        number = self.world.largest(stop.number)
        if not number:
            return
        self._check_last()
        if not saved:
            self.save()
        raise self._told_once(
            Interrupted(
                f"stopped after step {self.state.step} of {self.total_steps}; "
                + ("everything is saved" if self.recipe.train.checkpoints else "nothing is saved (train.checkpoints)"),
                signal_number=number,
                run=self.folder,
            )
        )

    def _left_at_once(self, number: int) -> Interrupted:
        """Return what a second signal raises while the first one is being answered."""
        if self.saved_step < 0:
            return Interrupted("interrupted before anything was saved", signal_number=number)
        saved = f"interrupted before all was saved; the state after step {self.saved_step} is"
        return Interrupted(saved, signal_number=number, run=self.folder)

    def _told_once(self, error: CtnetError) -> CtnetError:
        """Return what this rank raises when all ranks run into the same error."""
        return error if self.world.leads else ReportedByOtherRank(error)

    def _check_last(self) -> None:
        """Look at the flag of the last update that is unchecked.

        Raises Diverged when loss or gradient are not finite; with loss scaling, when that is so too often in a row.
        """
        if self.unchecked is None:
            return
        (result, batches), self.unchecked = self.unchecked, None
        if bool(result.finite()):
            self.overflows = 0
            return
        scaled, step = self.state.scaler.is_enabled(), self.state.step
        if scaled:
            self.overflows += 1
            self.state.record.skip_last()
            if self.overflows < self.recipe.train.overflows:
                return
        path = self.folder / "nonfinite" / f"step_{step:07d}.pt"
        everyones = [batch for rank in self.world.gather(batches) for batch in rank]
        if self.world.leads:
            write_zip(path, [{**batch._asdict(), "targets": batch.targets._asdict()} for batch in everyones])
        raise self._told_once(
            Diverged(
                f"step {step}: the loss or its gradient is not finite"
                + (f", in {self.overflows} updates in a row" if scaled else ""),
                losses=", ".join(f"{name} {float(value):g}" for name, value in result.losses.items()),
                images=", ".join(str(int(i)) for batch in everyones for i in batch.image_ids),
                batch=path,
                last_state=self.folder / "checkpoints" / "last.pt",
                loss_scale=f"{self.state.scaler.get_scale():g}" if scaled else None,
                hint="lower --lr, lengthen schedule.warmup, or use --precision fp32"
                + ("; a lower train.loss_scale, or dynamic" if self.precision.static_scale else ""),
            )
        )

    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        overall = self.speed.overall()
        train = self.recipe.train
        return {
            "schema": "ctnet.train/1",
            "network": self.recipe.name,
            "device": str(self.device.torch_device),
            "world_size": self.world.size,
            "precision": self.precision.sentence(),
            "batch_size": self.share,
            "effective_batch": self.order.batch_size * train.accumulate,
            "epochs": self.state.step / self.steps_per_epoch,
            "steps": self.state.step,
            "images_per_s": overall["images_per_s"],
            "ms_per_step": overall["ms_per_step"],
            "data_wait": overall["data_wait"],
            "peak_memory_bytes": peak_memory(self.device),
            "loss": self.state.record.logged.get("loss"),
            **{name: self.state.best.get(name) for name in self.validation.scorer.shown},
            "best_step": self.state.best.get("step"),
            "protocol": self.validation.protocol,
            "skipped_images": len(set().union(*self.world.gather(self.skipped))),
            "wall_s": self._wall_s(),
            "run": str(self.folder),
        }
