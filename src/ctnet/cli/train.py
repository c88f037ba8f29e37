"""`ctnet train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from ctnet.cli.arguments import (
    Arguments,
    parse_image_size,
    split_arguments,
    split_training_arguments,
    writable_folder,
)
from ctnet.cli.console import say
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.config import Recipe
    from ctnet.devices import OpenDevice
    from ctnet.engine.launch import Plan
    from ctnet.engine.place import Place
    from ctnet.engine.report import Reporter
    from ctnet.engine.world import World

_DATA, _OPTIMISATION, _DEVICE, _OUTPUT = "Data", "Optimisation", "Device", "Output"
_PROCESSES = "Many processes"
_LAUNCHER_FLAGS = ("--nproc", "--nnodes", "--node-rank", "--rdzv-endpoint", "--max-restarts")


DataPath = Annotated[
    str | None,
    Option(help="folder in COCO, VOC or YOLO layout, or YAML; without it the demo set", rich_help_panel=_DATA),
]
ImageSize = Annotated[
    str | None, Option(help="network input, N or HxW, multiples of 32 (hourglass: 128)", rich_help_panel=_DATA)
]
Epochs = Annotated[int | None, Option(help="passes over the pictures", rich_help_panel=_OPTIMISATION)]
MaxSteps = Annotated[int | None, Option(help="stop after so many updates", rich_help_panel=_OPTIMISATION)]
BatchSize = Annotated[
    int | None, Option(help="pictures a step; the learning rate follows", rich_help_panel=_OPTIMISATION)
]
LearningRate = Annotated[float | None, Option(help="learning rate, used as it is", rich_help_panel=_OPTIMISATION)]
Seed = Annotated[int | None, Option(help="seed of weights, order, augmentation", rich_help_panel=_OPTIMISATION)]
Weights = Annotated[
    Path | None,
    Option(help="fine-tune from this detector: ctnet's, CenterNet's, mmdet's, ...", rich_help_panel=_OPTIMISATION),
]
BackboneWeights = Annotated[
    str | None,
    Option(
        help="start the trunk from this file or URL: torchvision, timm, detectron2, any detector",
        metavar="FILE|URL",
        rich_help_panel=_OPTIMISATION,
    ),
]
Resume = Annotated[
    str | None,
    Option(help="continue a run folder, or the newest with 'last'", metavar="RUN", rich_help_panel=_OUTPUT),
]
Device = Annotated[
    str, Option(help="auto, cpu, cuda, npu, sdaa or a plug-in; add :N for a card", rich_help_panel=_DEVICE)
]
Amp = Annotated[str | None, Option(help="auto, off, bf16 or fp16", rich_help_panel=_DEVICE)]
Nproc = Annotated[
    str | None,
    Option(
        help="start so many processes on this machine, one a card; auto: all cards",
        metavar="N|auto",
        rich_help_panel=_PROCESSES,
    ),
]
Nnodes = Annotated[int, Option(min=1, help="machines; start the command on each", rich_help_panel=_PROCESSES)]
NodeRank = Annotated[int, Option(help="which of them this is, from 0", rich_help_panel=_PROCESSES)]
RdzvEndpoint = Annotated[
    str | None,
    Option(help="where they meet: an address of machine 0", metavar="HOST:PORT", rich_help_panel=_PROCESSES),
]
MaxRestarts = Annotated[
    int,
    Option(min=0, help="start again, from the last saved state, when a process dies", rich_help_panel=_PROCESSES),
]
Timeout = Annotated[
    float,
    Option(min=1, help="seconds that a process waits for the others before it gives up", rich_help_panel=_PROCESSES),
]
Profile = Annotated[
    bool, Option("--profile", help="write a torch profiler trace of four steps", rich_help_panel=_DEVICE)
]
Out = Annotated[
    Path | None,
    Option(callback=writable_folder, help="run folder; default runs/train/NAME-N", rich_help_panel=_OUTPUT),
]
AsJson = Annotated[bool, Option("--json", help="print the summary as one JSON document", rich_help_panel=_OUTPUT)]


def train(
    arguments: Arguments = None,
    data: DataPath = None,
    image_size: ImageSize = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    seed: Seed = None,
    weights: Weights = None,
    backbone_weights: BackboneWeights = None,
    resume: Resume = None,
    device: Device = "auto",
    amp: Amp = None,
    profile: Profile = False,
    nproc: Nproc = None,
    nnodes: Nnodes = 1,
    node_rank: NodeRank = 0,
    rdzv_endpoint: RdzvEndpoint = None,
    max_restarts: MaxRestarts = 0,
    timeout: Timeout = 600.0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Train a detector and evaluate it.

    CONFIG is a shipped recipe (ctnet config list) or a .yaml file; any setting can follow as dotted.key=value. Without
    CONFIG it is centernet_res18_lateral, or demo when there is no --data either, or what fits the network of --weights;
    --weights and --backbone-weights then lower the learning rate.

    Examples:
    ctnet train

    ctnet train centernet_dla34 --data PATH --image-size 512 augment.flip_vertical=0.5

    ctnet train --resume last

    ctnet train --nproc 8 --data PATH
    """
    flags = _flags(data, image_size, epochs, max_steps, batch_size, lr, seed, amp)
    if resume is not None:
        _refuse_changes(arguments, flags, {"--weights": weights, "--backbone-weights": backbone_weights, "--out": out})

    from ctnet.engine.failure import reporting

    run = None if resume in (None, "last") else Path(str(resume))
    if nproc is None and (nnodes, node_rank, rdzv_endpoint, max_restarts) != (1, 0, None, 0):
        raise ConfigError("--nnodes, --node-rank, --rdzv-endpoint and --max-restarts go with --nproc")
    with reporting() as place:
        recipe = None if resume is not None else _recipe(arguments, data, weights, backbone_weights, flags)
        if nproc is not None:
            if place.size > 1:
                raise ConfigError("--nproc starts processes, but this is already one of several", hint="leave it out")
            from ctnet.engine.launch import Plan

            _launch(Plan(nproc, nnodes, node_rank, rdzv_endpoint, max_restarts, timeout), device, recipe, out, run)
            return
        start = (
            _new(recipe, out, weights, backbone_weights, profile) if recipe else _resumed(run, data, max_steps, profile)
        )
        _run_here(start, device, place, timeout, as_json)


def _recipe(
    arguments: list[str] | None, data: str | None, weights: Path | None, trunk: str | None, flags: dict[str, Any]
) -> Recipe:
    """Return the recipe to train by: the one that is named, or what fits the weights, or the default."""
    from ctnet.config import load_recipe

    named, overrides = split_arguments(arguments, "")
    brought = None
    if not named and (weights or trunk):
        from ctnet.weights.opening import FINE_TUNING_OPTIMIZER, fine_tuning_recipe

        if weights is not None:
            return fine_tuning_recipe(weights, overrides, flags)
        brought = (f"--backbone-weights {trunk}", {"optimizer": FINE_TUNING_OPTIMIZER})
    return load_recipe(*split_training_arguments(arguments, data), flags, brought=brought).recipe


def _flags(
    data: str | None, image_size: str | None, epochs: int | None, max_steps: int | None, batch_size: int | None,
    lr: float | None, seed: int | None, amp: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what the options set, by option and dotted key; None where one was not given."""
    return {
        "--data data.path": data,
        "--image-size data.image_size": parse_image_size(image_size),
        "--epochs schedule.epochs": epochs,
        "--max-steps train.max_steps": max_steps,
        "--batch-size train.batch_size": batch_size,
        "--lr optimizer.lr": lr,
        "--lr optimizer.lr_scaling": None if lr is None else "none",
        "--seed seed": seed,
        "--amp train.amp": amp,
    }


Start = Callable[["Reporter", "OpenDevice", "World"], dict[str, Any]]


def _new(recipe: Recipe, out: Path | None, weights: Path | None, backbone_weights: str | None, profile: bool) -> Start:
    from ctnet.engine import train as engine

    options = engine.RunOptions(out, weights, backbone_weights, profile)
    return lambda reporter, opened, world: engine.train(recipe, options, reporter, opened, world)


def _resumed(run: Path | None, data: str | None, max_steps: int | None, profile: bool) -> Start:
    from ctnet.engine import train as engine

    moved = None if data is None else Path(data)
    return lambda reporter, opened, world: engine.resume(
        run, reporter, opened, world, data=moved, max_steps=max_steps, profile=profile
    )


def _run_here(start: Start, device: str, place: Place, timeout: float, as_json: bool) -> None:
    """Run in this process, alone or as one of several, and print the summary where one leads."""
    from ctnet.engine.world import joined

    with _reporter(leads=place.leads) as reporter, joined(device, place, timeout) as (world, opened):
        summary = start(reporter, opened, world)
    if place.leads:
        _print_summary(summary, as_json)


def _reporter(*, leads: bool) -> AbstractContextManager[Reporter]:
    from ctnet.cli.reporter import ConsoleReporter
    from ctnet.engine.report import Silence

    return ConsoleReporter() if leads else nullcontext(Silence())


def _launch(plan: Plan, device: str, recipe: Recipe | None, out: Path | None, run: Path | None) -> None:
    """Start the processes with this command line, without the launcher's flags and with the run folder."""
    from ctnet.engine.launch import folder_to_fill, folder_to_resume, launch

    plan.check()
    plan.processes(device)
    if recipe is None:
        flag, folder = "--resume", folder_to_resume(plan, run)
    else:
        flag, folder = "--out", folder_to_fill(plan, recipe, out)
    replaced = (*_LAUNCHER_FLAGS, flag) if folder is not None else _LAUNCHER_FLAGS
    command = _without(sys.argv[1:], replaced)
    launch(plan, device, [*command, *([flag, str(folder)] if folder is not None else [])])


def _without(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """Return the words of a command line without these flags, given as `--flag VALUE` or `--flag=VALUE`."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in flags:
            next(rest, None)
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return kept


def _refuse_changes(arguments: list[str] | None, flags: dict[str, Any], files: dict[str, Any]) -> None:
    given = [*(arguments or [])]
    kept = ("--data", "--max-steps")
    given += [key.split()[0] for key, value in flags.items() if value is not None and key.split()[0] not in kept]
    given += [flag for flag, value in files.items() if value is not None]
    if given:
        raise ConfigError(
            "a resumed run keeps its settings",
            got=" ".join(given),
            hint="--resume goes with --device, --data (if it moved), --max-steps, --profile and --json only; "
            "start a new run with --weights RUN/checkpoints/best.safetensors to change more",
        )


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    ap = "-" if summary["AP"] is None else f"{100 * summary['AP']:.1f}"
    say(f"run      {summary['run']}")
    say(f"best     AP {ap} at step {summary['best_step']}  ({summary['run']}/checkpoints/best.safetensors)")
    say(f"speed    {summary['images_per_s']:.1f} images/s, {100 * summary['data_wait']:.0f} % waiting for data")
    say(f"time     {summary['wall_s'] / 60:.1f} min")
    if summary["report"]:
        say(f"report   {summary['report']}")
