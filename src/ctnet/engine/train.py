"""From a recipe to a finished run: data, network, state, loop, summary."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet.config import Recipe, recipe_from_dict
from ctnet.data.dataset import check_usable, has_split, open_dataset
from ctnet.data.demo import demo_folder
from ctnet.data.loader import default_workers
from ctnet.devices import OpenDevice
from ctnet.engine.precision import choose_precision
from ctnet.engine.report import Reporter
from ctnet.engine.run_folder import LAST, new_run_folder, run_to_resume, write_run_facts
from ctnet.engine.schedule import peak_lr
from ctnet.engine.start import start_from_data
from ctnet.engine.state import TrainingState, new_state, restore_state, seed_generators
from ctnet.engine.trainer import Trainer, training_samples
from ctnet.engine.validation import Validation
from ctnet.engine.world import World
from ctnet.errors import ConfigError, CtnetError, DataError
from ctnet.eval.coco import align_categories
from ctnet.families import family_of
from ctnet.files import write_file
from ctnet.types import AnnotationSet
from ctnet.weights.backbone import fetch, is_address, load_backbone
from ctnet.weights.class_rows import rows_by_class
from ctnet.weights.ctnet_file import read_state
from ctnet.weights.fit import load_for_finetuning
from ctnet.weights.opening import open_weights


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beside its recipe."""

    out: Path | None = None
    weights: Path | None = None
    backbone_weights: str | None = None
    profile: bool = False


def train(recipe: Recipe, options: RunOptions, reporter: Reporter, device: OpenDevice, world: World) -> dict[str, Any]:
    """Run a new training and return its summary, also written to `summary.json`.

    A launcher that starts the processes again, after one died, continues the run in `options.out`. Raises CtnetError
    for everything a user can mend; see `Trainer.run` for stops.
    """
    out = options.out
    if world.place.restart and out and world.share(lambda: (out / LAST).is_file()):
        reporter.message(f"restart {world.place.restart} of {world.place.restarts}: a process of the run has died")
        return resume(out, reporter, device, world, profile=options.profile)
    path, train_set, val_set = world.together(lambda: open_data(recipe, reporter))
    seed_generators(recipe.seed)
    folder = world.share(lambda: new_run_folder(recipe.name, out, reuse=world.place.restart > 0))
    try:
        trainer = _build(recipe, path, folder, device, train_set, val_set, reporter, world, profile=options.profile)
        world.together(lambda: _fetch(options.backbone_weights, world))
        sentences = world.together(lambda: _start_from(trainer.state, recipe, options, train_set))
    except CtnetError:
        if world.leads:
            with suppress(OSError):  # a mistake leaves no empty folder behind
                folder.rmdir()
        raise
    for sentence in sentences:
        reporter.message(sentence)
    if world.leads:
        sets = {recipe.data.train_split: train_set} | ({recipe.data.val_split: val_set} if val_set else {})
        write_run_facts(folder, recipe, device, sets)
    return _run(trainer)


def _fetch(backbone: str | None, world: World) -> None:
    """Fetch a backbone that has an address, once for each machine: its other processes find the file."""
    if backbone is not None and is_address(backbone) and world.place.local_rank == 0:
        fetch(backbone)


def _start_from(state: TrainingState, recipe: Recipe, options: RunOptions, train_set: AnnotationSet) -> list[str]:
    """Fill the network from the data and from the files that the options name; return what went in."""
    fresh = start_from_data(state.family, state.network, training_samples(train_set, recipe))
    sentences = fresh if options.weights is None else []
    if options.backbone_weights is not None:
        sentences += load_backbone(state.network, options.backbone_weights, recipe.model, recipe.data)
    if options.weights is not None:
        weights = open_weights(options.weights)
        tensors, moved = rows_by_class(
            state.family, state.network, weights.tensors, weights.categories, train_set.categories
        )
        report = load_for_finetuning(state.network, tensors, options.weights, weights.file_names)
        sentences += [f"{options.weights}: {report.sentence()}", *moved, *weights.notes]
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
    max_steps: int | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Continue a run folder (None: the newest) to its end and return its summary.

    Everything comes from the run, so that it ends as if it had never stopped; `data` says where its pictures are now.
    Another number of processes share the same batches.
    """
    folder, content = world.share(lambda: _read_run(run_to_resume(run)))
    recipe = recipe_from_dict(content["recipe"], str(folder / LAST))
    recipe = _set_train(recipe, batch_size=_rebatched(recipe, content.get("world_size", 1), world.size))
    if max_steps is not None:
        if max_steps <= content["step"]:
            raise ConfigError("the run has come further already", run=folder, step=content["step"], max_steps=max_steps)
        recipe = _set_train(recipe, max_steps=max_steps)
    path = data or Path(content["data"])
    train_set, val_set = world.together(lambda: _open_sets(path, recipe, reporter))
    if [list(c) for c in train_set.categories] != [list(c) for c in content["categories"]]:
        raise DataError("the data set's categories have changed since the run began", file=train_set.source)
    trainer = _build(recipe, path, folder, device, train_set, val_set, reporter, world, profile=profile)
    restore_state(content, trainer.state, device)
    if trainer.state.step >= trainer.total_steps and not trainer.state.evaluation_due:
        summary: dict[str, Any] | None = world.share(lambda: _read_summary(folder))
        if summary is not None:
            reporter.message(f"{folder}: complete since step {trainer.state.step}, nothing is left to do")
            return summary
    reporter.message(f"{folder}: resumed after step {trainer.state.step} of {trainer.total_steps}")
    return _run(trainer)


def _read_summary(folder: Path) -> dict[str, Any] | None:
    file = folder / "summary.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _read_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    return folder, read_state(folder / LAST)


def _rebatched(recipe: Recipe, before: int, now: int) -> int:
    """Return the pictures per process with which `now` processes take the batches that `before` processes took."""
    pictures = recipe.train.batch_size * before
    if pictures % now:
        raise ConfigError(
            f"{now} processes cannot share the run's batches of {pictures} pictures evenly",
            began_with=f"{before} processes",
            hint=f"--nproc {before}, or any number that divides {pictures}",
        )
    return pictures // now


def _set_train(recipe: Recipe, **values: object) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=values)})


def open_data(recipe: Recipe, reporter: Reporter) -> tuple[Path, AnnotationSet, AnnotationSet | None]:
    """Return where the recipe's pictures are, those to train on, and those to evaluate on if there are any.

    Raises DataError when they cannot be used.
    """
    path = Path(recipe.data.path).expanduser() if recipe.data.path else demo_folder()
    return path, *_open_sets(path, recipe, reporter)


def _open_sets(path: Path, recipe: Recipe, reporter: Reporter) -> tuple[AnnotationSet, AnnotationSet | None]:
    train_set = open_dataset(path, recipe.data.train_split)
    for warning in check_usable(train_set):
        reporter.message(f"warning: {warning}")
    cap = recipe.data.max_objects
    crowded = [image for image in train_set.images if len(image.labels) > cap]
    if crowded:
        most = max(crowded, key=lambda image: len(image.labels))
        reporter.message(
            f"warning: {len(crowded)} pictures have more than {cap} objects, first {cap} are used "
            f"({most.path.name}: {len(most.labels)}); raise data.max_objects"
        )
    val_split = recipe.data.val_split
    if not has_split(path, val_split):
        reporter.message(f"warning: no evaluation while training: there is no split {val_split!r}")
        return train_set, None
    val_set = open_dataset(path, val_split)
    align_categories(train_set.categories, val_set.categories)  # refuses a set that could not be scored
    for warning in check_usable(val_set):
        reporter.message(f"warning: {warning}")
    return train_set, val_set


def _build(
    recipe: Recipe,
    data: Path,
    folder: Path,
    device: OpenDevice,
    train_set: AnnotationSet,
    val_set: AnnotationSet | None,
    reporter: Reporter,
    world: World,
    *,
    profile: bool,
) -> Trainer:
    precision = choose_precision(recipe.train.amp, device)
    lr, lr_sentence = peak_lr(recipe.optimizer, recipe.train.batch_size * recipe.train.accumulate * world.size)
    synchronised = recipe.train.sync_bn and world.size > 1
    family = family_of(recipe, train_set.keypoints)
    state = new_state(family, len(train_set.categories), device, precision, lr, synchronised=synchronised)
    workers = default_workers(world.place.local_size) if recipe.data.workers is None else recipe.data.workers
    validation = Validation(recipe, train_set.categories, val_set, device, reporter, world, workers)
    parameters = sum(p.numel() for p in state.network.parameters())
    reporter.message(f"run folder {folder}")
    reporter.message(
        f"{recipe.name}: {parameters / 1e6:.1f} M parameters on {device.torch_device} ({device.reason}), "
        f"{precision.sentence()}, {workers} loader processes"
    )
    reporter.message(
        f"data: {len(train_set.images)} pictures with {train_set.num_boxes} boxes of "
        f"{len(train_set.categories)} classes; evaluation on {len(val_set.images) if val_set else 0}"
    )
    reporter.message(lr_sentence)
    trainer = Trainer(
        folder, recipe, data.absolute(), state, train_set, device, precision, lr, validation, reporter, world, profile
    )
    if world.size > 1:
        reporter.message(_sharing_sentence(trainer))
    return trainer


def _sharing_sentence(trainer: Trainer) -> str:
    world, train, last = trainer.world, trainer.recipe.train, trainer.order.last_batch
    norms = "over all processes" if train.sync_bn else "within each process (train.sync_bn=true: over all)"
    shares = sorted({last // world.size, -(-last // world.size)}, reverse=True)
    return (
        f"{world.size} processes through {trainer.device.plugin.ddp_backend}, {train.batch_size} pictures each; an "
        f"epoch's last batch of {last} is shared as {' or '.join(map(str, shares))}; norms {norms}"
    )


def _run(trainer: Trainer) -> dict[str, Any]:
    """Train to the end and return the summary, on every rank; rank 0 writes it."""
    trainer.run()
    page = trainer.validation.report(trainer.state, trainer.folder)
    summary = {**trainer.summary(), "report": None if page is None else str(page)}
    if trainer.world.leads:
        write_file(trainer.folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary
