"""From a recipe to a finished run: data, network, state, loop, summary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctnet.config import Recipe, changed
from ctnet.data.checks.usable import look_over, say_of, without
from ctnet.data.dataset import has_split, open_dataset
from ctnet.data.demo import data_or_demo
from ctnet.data.loader import worker_count
from ctnet.devices import OpenDevice
from ctnet.engine.class_weights import with_class_weights
from ctnet.engine.initial_norms import start_norms
from ctnet.engine.initial_sizes import start_from_data
from ctnet.engine.precision import choose_precision
from ctnet.engine.processes.world import World
from ctnet.engine.profile import ProfilePlan
from ctnet.engine.report import Reporter
from ctnet.engine.run_folder import (
    LAST,
    new_run_folder,
    require_same_data,
    run_to_resume,
    write_recipe,
    write_run_facts,
)
from ctnet.engine.schedule import cut_warmup, lr_factor, peak_lr
from ctnet.engine.state import TrainingState, new_state, restore_state, seed_generators
from ctnet.engine.trainer import Trainer, training_samples
from ctnet.engine.validation import Validation
from ctnet.errors import ConfigError, DataError
from ctnet.eval.coco import align_categories
from ctnet.eval.keypoints import aligned_points
from ctnet.eval.scorer import scorer_of
from ctnet.families import family_of
from ctnet.files import read_file, write_file
from ctnet.limits import TEXT_BYTES, parse_json
from ctnet.types import AnnotationSet
from ctnet.weights.backbone import fetch, is_address, load_backbone
from ctnet.weights.class_rows import rows_by_class
from ctnet.weights.ctnet_file import FOLDED, read_state
from ctnet.weights.fit import load_for_finetuning
from ctnet.weights.opening import open_weights


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beside its recipe."""

    out: Path | None = None
    weights: Path | None = None
    backbone_weights: str | None = None
    profile: ProfilePlan | None = None
    verify: bool = True


def train(recipe: Recipe, options: RunOptions, reporter: Reporter, device: OpenDevice, world: World) -> dict[str, Any]:
    """Run a new training and return its summary, also written to `summary.json`.

    A launcher that starts the processes again, after one died, continues the run in `options.out`. Raises CtnetError
    for everything a user can correct; see `Trainer.run` for stops.
    """
    out = options.out
    if world.rank_info.restart and out and world.broadcast_from_rank0(lambda: (out / LAST).is_file()):
        reporter.message(
            f"restart {world.rank_info.restart} of {world.rank_info.restarts}: a process of the run has died"
        )
        return resume(out, reporter, device, world, profile=options.profile)
    path, train_set, val_set = world.run_on_all_ranks(lambda: open_data(recipe, reporter))
    trained_on, unreadable = world.broadcast_from_rank0(lambda: check_data(recipe, train_set, val_set, reporter))
    train_set = without(train_set, unreadable)
    recipe = with_class_weights(recipe, train_set)
    seed_generators(recipe.seed)
    with _shared(new_run_folder(recipe.name, out, reuse=world.rank_info.restart > 0), world) as folder:
        trainer = _build(
            recipe, path, folder, device, train_set, val_set, trained_on, reporter, world, profile=options.profile
        )
        world.run_on_all_ranks(lambda: _fetch(options.backbone_weights, world))
        if trainer.state.frozen and options.weights is None and options.backbone_weights is None:
            reporter.message("warning: what is frozen has random weights; name trained ones by --backbone-weights")
        sentences = world.run_on_all_ranks(lambda: _start_from(trainer.state, recipe, options, train_set))
        for sentence in sentences:
            reporter.message(sentence)
        if world.leads:
            write_run_facts(folder, recipe, device, _named(recipe, train_set, val_set))
        return _run(trainer)


@contextmanager
def _shared(folder: AbstractContextManager[Path], world: World) -> Iterator[Path]:
    """Give the folder that rank 0 enters, and holds for all ranks while the block lasts."""
    with ExitStack() as stack:
        yield world.broadcast_from_rank0(lambda: stack.enter_context(folder))


def _named(recipe: Recipe, train_set: AnnotationSet, val_set: AnnotationSet | None) -> dict[str, AnnotationSet]:
    """Return the sets by the names of their splits."""
    return {recipe.data.train_split: train_set} | ({recipe.data.val_split: val_set} if val_set else {})


def _fetch(backbone: str | None, world: World) -> None:
    """Fetch a backbone that has an address, once for each machine: its other processes find the file."""
    if backbone is not None and is_address(backbone) and world.rank_info.local_rank == 0:
        fetch(backbone)


def _start_from(state: TrainingState, recipe: Recipe, options: RunOptions, train_set: AnnotationSet) -> list[str]:
    """Initialise the network from the data and from the files that the options name; return sentences about it."""
    fresh = start_from_data(state.family, state.network, training_samples(train_set, recipe))
    sentences = fresh if options.weights is None else []
    if options.backbone_weights is not None:
        sentences += load_backbone(state.network, options.backbone_weights, recipe.model, recipe.data)
    if options.weights is not None:
        weights = open_weights(options.weights, verify=options.verify)
        tensors, moved = rows_by_class(
            state.family, state.network, weights.tensors, weights.categories, train_set.categories
        )
        report = load_for_finetuning(
            state.network, tensors, options.weights, weights.file_names,
            ("heads.", *(f"{layer}." for layer, _, _ in state.family.class_layers(state.network))),
        )  # fmt: skip
        sentences += [f"{options.weights}: {report.sentence()}", *moved, *weights.notes]
        if FOLDED in weights.info:
            start_norms(state.network, recipe.data, training_samples(train_set, recipe))
    if state.average is not None:
        state.average.network.load_state_dict(state.network.state_dict())
    return sentences


def resume(
    run: Path | None,
    reporter: Reporter,
    device: OpenDevice,
    world: World,
    *,
    data: Path | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    accept_changed_data: bool = False,
    profile: ProfilePlan | None = None,
) -> dict[str, Any]:
    """Continue a run folder (None: the newest), or a checkpoint of one, to its end and return its summary.

    All settings come from the run, so that the result equals an uninterrupted one, but for the length that `epochs` and
    `max_steps` give it; `data` is the new path of its
    images. Changed annotations are refused unless accepted. Another number of processes share the same batches.
    """
    if world.rank_info.restart and run is not None and run.suffix == LAST.suffix:
        run = run.parents[1]  # it has gone back to that checkpoint already
    with _shared(run_to_resume(run), world) as folder:
        content, about = world.broadcast_from_rank0(lambda: read_state(folder / LAST))
        length = {"schedule.epochs": epochs, "train.max_steps": max_steps}
        length = {key: number for key, number in length.items() if number is not None}
        recipe = changed(_rebatched(about.recipe, about.world_size, world.size), length)
        path = data or Path(about.data)
        train_set, val_set = world.run_on_all_ranks(lambda: _open_sets(path, recipe, reporter))
        if train_set.categories != about.categories:
            raise DataError("the data set's categories have changed since the run began", file=train_set.source)
        if train_set.keypoints != about.keypoints:
            raise DataError("the data set's key points have changed since the run began", file=train_set.source)
        trained_on, unreadable = world.broadcast_from_rank0(
            lambda: check_data(recipe, train_set, val_set, reporter, new=False)
        )
        train_set = without(train_set, unreadable)
        sets = _named(recipe, train_set, val_set)
        difference = world.broadcast_from_rank0(lambda: require_same_data(folder, sets, accept=accept_changed_data))
        if difference:
            reporter.message(f"warning: the data set has changed since the run began: {difference}")
        trainer = _build(recipe, path, folder, device, train_set, val_set, trained_on, reporter, world, profile=profile)
        restore_state(content, trainer.state, device, folder / LAST, world.rank_info.rank, world.size)
        if changed(about.recipe, length) != about.recipe:
            _take_length(trainer, about.recipe.schedule.epochs)
        if trainer.state.step >= trainer.total_steps and not trainer.state.evaluation_due:
            step = trainer.state.step
            summary: dict[str, Any] | None = world.broadcast_from_rank0(lambda: _read_summary(folder, step))
            if summary is not None:
                reporter.message(f"{folder}: complete since step {step}; --epochs N trains it further")
                return summary
        reporter.message(f"{folder}: resumed after step {trainer.state.step} of {trainer.total_steps}")
        return _run(trainer)


def _take_length(trainer: Trainer, epochs_before: int) -> None:
    """Write down that the run has another length, and report what its schedule does then. Raises ConfigError."""
    recipe, step, per_epoch = trainer.recipe, trainer.state.step, trainer.steps_per_epoch
    if trainer.total_steps <= step:
        raise ConfigError(
            "the run has come as far already", run=trainer.folder,
            trained=f"{step} steps, {step / per_epoch:.4g} epochs of {per_epoch}",
            epochs=recipe.schedule.epochs, max_steps=recipe.train.max_steps or None,
        )  # fmt: skip
    if trainer.world.leads:
        write_recipe(trainer.folder, recipe)
    if recipe.schedule.epochs != epochs_before:
        before = lr_factor(recipe.schedule, max(step - 1, 0), per_epoch, epochs_before * per_epoch)
        now = lr_factor(recipe.schedule, step, per_epoch, trainer.planned_steps)
        trainer.reporter.message(
            f"{recipe.schedule.epochs} epochs instead of {epochs_before}: the learning rate follows "
            f"schedule.name={recipe.schedule.name} over the new length from step {step} on, where it goes from "
            f"{trainer.peak_lr * before:.3g} to {trainer.peak_lr * now:.3g}"
        )


def _read_summary(folder: Path, step: int) -> dict[str, Any] | None:
    """Return the summary if it is of this step, not of an earlier end of the run."""
    with suppress(OSError, ValueError):
        summary = parse_json(read_file(folder / "summary.json", TEXT_BYTES))
        if isinstance(summary, dict) and summary.get("steps") == step:
            return summary
    return None


def _rebatched(recipe: Recipe, before: int, now: int) -> Recipe:
    """Return the recipe with which `now` processes take the batches that `before` processes took."""
    images = recipe.train.images_per_process(before) * before
    if recipe.train.batch_size is None:
        recipe.train.images_per_process(now)  # raises where they cannot
        return recipe
    if images % now:
        raise ConfigError(
            f"{now} processes cannot share the run's batches of {images} images evenly",
            began_with=f"{before} processes",
            hint=f"--nproc {before}, or any number that divides {images}",
        )
    return changed(recipe, {"train.batch_size": images // now})


def open_data(recipe: Recipe, reporter: Reporter) -> tuple[Path, AnnotationSet, AnnotationSet | None]:
    """Return the path of the data set, its training split, and its evaluation split if there is one.

    Raises DataError when they cannot be used.
    """
    path = data_or_demo(recipe.data.path)
    return path, *_open_sets(path, recipe, reporter)


def _open_sets(path: Path, recipe: Recipe, reporter: Reporter) -> tuple[AnnotationSet, AnnotationSet | None]:
    train_set = open_dataset(path, recipe.data.train_split)
    cap = recipe.data.max_objects
    crowded = [image for image in train_set.images if len(image.labels) > cap]
    if crowded:
        most = max(crowded, key=lambda image: len(image.labels))
        reporter.message(
            f"warning: {len(crowded)} images have more than {cap} objects, {cap} of those in view are used "
            f"({most.path.name}: {len(most.labels)}); raise data.max_objects"
        )
    val_split = recipe.data.val_split
    if not has_split(path, val_split):
        reporter.message(f"warning: no evaluation while training: there is no split {val_split!r}")
        return train_set, None
    val_set = open_dataset(path, val_split)
    align_categories(train_set.categories, val_set.categories)  # refuses a set that could not be scored
    return train_set, val_set


def check_data(
    recipe: Recipe, train_set: AnnotationSet, val_set: AnnotationSet | None, reporter: Reporter, *, new: bool = True
) -> tuple[int, frozenset[Path]]:
    """Return how many images to evaluate on are also trained on, and the files that cannot be read; report findings.

    Only a new run needs a box to learn from. Raises DataError as `look_over` does.
    """

    def progress(done: int, total: int) -> None:
        reporter.progress("check images", done, total, {})

    sets = [train_set, *([val_set] if val_set else [])]
    findings, unreadable = look_over(*sets, settings=recipe.data, learn=new, progress=progress)
    for finding in findings:
        reporter.message(say_of(finding))
    trained_on = sum(finding.count for finding in findings if finding.code == "image-in-two-splits")
    if val_set and 10 * trained_on >= len(val_set.images):
        reporter.message("warning: the evaluation is on images that are trained on: the last weights count as the best")
    return trained_on, unreadable


def _build(
    recipe: Recipe,
    data: Path,
    folder: Path,
    device: OpenDevice,
    train_set: AnnotationSet,
    val_set: AnnotationSet | None,
    trained_on: int,
    reporter: Reporter,
    world: World,
    *,
    profile: ProfilePlan | None,
) -> Trainer:
    precision = choose_precision(recipe.train.amp, device, recipe.train.loss_scale)
    share = recipe.train.images_per_process(world.size)
    lr, lr_sentence = peak_lr(recipe.optimizer, share * recipe.train.accumulate * world.size)
    synchronised = recipe.train.sync_bn and world.size > 1
    family = family_of(recipe, train_set.keypoints)
    train_set = _with_objects(train_set, recipe)
    state = new_state(family, len(train_set.categories), device, precision, lr, synchronised=synchronised)
    workers = worker_count(recipe.data.workers, world.rank_info.local_size)
    scorer = scorer_of(family, val_set)
    if family.keypoints and val_set is not None and val_set.keypoints is not None:
        _, unscored = aligned_points({}, family.keypoints, val_set.keypoints)
        if unscored:
            reporter.message(f"warning: {unscored}")
    validation = Validation(
        recipe, train_set.categories, val_set, device, reporter, world, workers, scorer, trained_on=trained_on
    )
    parameters = sum(p.numel() for p in state.network.parameters())
    reporter.message(f"run folder {folder}")
    reporter.message(
        f"{recipe.name}: {parameters / 1e6:.1f} M parameters on {device.torch_device} ({device.reason}), "
        f"{precision.sentence()}, {workers} loader processes"
    )
    reporter.message(
        f"data: {len(train_set.images)} images with {train_set.num_boxes} boxes of "
        f"{len(train_set.categories)} classes; evaluation on {len(val_set.images) if val_set else 0}"
    )
    reporter.message(lr_sentence)
    if state.frozen:
        reporter.message(state.frozen)
    trainer = Trainer(
        folder, recipe, data.absolute(), state, train_set, device, precision, lr, validation, reporter, world, profile
    )
    if trainer.order.factors is not None:
        shown = f"an epoch shows {len(train_set.images)} images {trainer.order.samples} times in all"
        reporter.message(f"repeat-factor sampling: {shown}, an image up to {trainer.order.factors.max():.1f} times")
    if world.size > 1:
        reporter.message(_sharing_sentence(trainer))
    elif recipe.train.sync_bn:
        reporter.message("warning: train.sync_bn has no effect with one process")
    if cut := cut_warmup(recipe.schedule, trainer.steps_per_epoch, trainer.planned_steps):
        reporter.message(cut)
    return trainer


def _with_objects(train_set: AnnotationSet, recipe: Recipe) -> AnnotationSet:
    """Return the images to train on: without those that have no object, unless they are wanted. Raises DataError."""
    if recipe.data.empty_images:
        return train_set
    images = tuple(image for image in train_set.images if (~image.crowd | recipe.data.crowd).any())
    if not images:
        raise DataError("no image has an object", file=train_set.source, hint="data.empty_images=true trains on all")
    return replace(train_set, images=images)


def _sharing_sentence(trainer: Trainer) -> str:
    world, train, last = trainer.world, trainer.recipe.train, trainer.order.last_batch
    whole = f" of train.global_batch={train.global_batch}" if train.global_batch else ""
    norms = "over all processes" if train.sync_bn else "within each process (train.sync_bn=true: over all)"
    shares = sorted({last // world.size, -(-last // world.size)}, reverse=True)
    return (
        f"{world.size} processes through {trainer.device.plugin.ddp_backend}, {trainer.share} images each{whole}; an "
        f"epoch's last batch of {last} is shared as {' or '.join(map(str, shares))}; norms {norms}"
    )


def _run(trainer: Trainer) -> dict[str, Any]:
    """Train to the end and return the summary, on every rank; rank 0 writes it."""
    trainer.run()
    page = trainer.validation.report(trainer.state, trainer.folder)
    summary = {**trainer.summary(), "report": None if page is None else str(page)}
    if trainer.world.leads:
        trainer.write_page()
        write_file(trainer.folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary
