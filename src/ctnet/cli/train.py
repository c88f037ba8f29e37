"""`ctnet train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ctnet.cli import options, processes
from ctnet.cli.arguments import parse_image_size, split_arguments, split_training_arguments, writable_folder
from ctnet.cli.console import say
from ctnet.errors import ConfigError
from ctnet.precision import PrecisionName, parse_precision

if TYPE_CHECKING:
    from ctnet.config import LoadedRecipe, Recipe
    from ctnet.devices import OpenDevice
    from ctnet.engine.processes.rank_info import RankInfo
    from ctnet.engine.processes.world import World
    from ctnet.engine.profile import ProfilePlan
    from ctnet.engine.report import Reporter

_LAUNCHER_FLAGS = ("--nproc", "--nnodes", "--node-rank", "--rdzv-endpoint", "--max-restarts", "--port")

DataPath = Annotated[
    str | None,
    options.DataOption(
        metavar="PATH",
        help="Folder in COCO, Pascal VOC, YOLO or WIDER FACE layout, COCO .json or YAML (default: the demo set)",
    ),
]
ImageSize = Annotated[
    str | None, options.DataOption(metavar="N|HxW", help="Network input in pixels, multiples of 32 (hourglass: 128)")
]
Epochs = Annotated[int | None, options.OptimisationOption(help="Passes over the training images")]
MaxSteps = Annotated[int | None, options.OptimisationOption(help="Stop after this many updates")]
BatchSize = Annotated[
    int | None, options.OptimisationOption(help="Images per process and step; the learning rate scales with all")
]
GlobalBatch = Annotated[
    int | None, options.OptimisationOption(help="Images per step over all processes, in the place of --batch-size")
]
LearningRate = Annotated[float | None, options.OptimisationOption(help="Learning rate, not scaled by batch size")]
Seed = Annotated[int | None, options.OptimisationOption(help="Seed of weights, order and augmentation")]
Weights = Annotated[
    Path | None,
    options.WeightsOption(metavar="FILE", help="Fine-tune this detector: of ctnet, CenterNet, mmdet, MindSpore"),
]
BackboneWeights = Annotated[
    str | None,
    options.WeightsOption(
        metavar="FILE|URL",
        help="Initialise the backbone from this file: of torchvision, timm, detectron2, any detector",
    ),
]
Resume = Annotated[
    str | None,
    options.OutputOption(
        metavar="RUN", help="Continue a run folder, its step_N.pt, or the newest with 'last'; --epochs N trains further"
    ),
]
AcceptChangedData = Annotated[
    bool,
    options.OutputOption(
        "--accept-changed-data", help="Resume although the annotations are not those that the run began with"
    ),
]
Precision = Annotated[
    PrecisionName | None,
    options.DeviceOption(
        "--precision",
        "--amp",
        metavar="auto|fp32|bf16|fp16",
        parser=parse_precision,
        help="auto (what the device runs fast), fp32 (or off), bf16 or fp16 (default: the recipe's)",
    ),
]
Profile = Annotated[bool, options.DeviceOption("--profile", help="Write a profiler trace of steps 5 to 8")]
ProfileDir = Annotated[
    Path | None,
    options.DeviceOption(metavar="DIR", callback=writable_folder, help="Write it there (default: RUN/profile)"),
]
ProfileSteps = Annotated[
    str | None, options.DeviceOption(metavar="FIRST-LAST", help="Record these steps of the run, counted from 1")
]
Nnodes = Annotated[int, options.ProcessOption(min=1, help="Number of machines; start the command on each")]
NodeRank = Annotated[int, options.ProcessOption(help="Index of this machine, from 0")]
RdzvEndpoint = Annotated[
    str | None, options.ProcessOption(metavar="HOST:PORT", help="Address of machine 0 where all machines meet")
]
MaxRestarts = Annotated[
    int, options.ProcessOption(min=0, help="Restart from the last saved state when a process dies, this often")
]
Timeout = Annotated[
    float, options.ProcessOption(min=1, help="Seconds that a process waits for the others before it fails")
]
AllowBackground = Annotated[
    bool | None,
    options.DataOption("--allow-background", help="Train although no box can be learned: on the background alone"),
]
Out = Annotated[
    Path | None,
    options.OutputOption(metavar="DIR", callback=writable_folder, help="Run folder (default: runs/train/NAME-N)"),
]


def train(
    arguments: options.Arguments = None,
    data: DataPath = None,
    image_size: ImageSize = None,
    allow_background: AllowBackground = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    global_batch: GlobalBatch = None,
    lr: LearningRate = None,
    seed: Seed = None,
    weights: Weights = None,
    backbone_weights: BackboneWeights = None,
    verify: options.Verify = True,
    resume: Resume = None,
    accept_changed_data: AcceptChangedData = False,
    device: options.Device = "auto",
    precision: Precision = None,
    profile: Profile = False,
    profile_dir: ProfileDir = None,
    profile_steps: ProfileSteps = None,
    nproc: processes.Nproc = None,
    nnodes: Nnodes = 1,
    node_rank: NodeRank = 0,
    rdzv_endpoint: RdzvEndpoint = None,
    port: processes.Port = None,
    max_restarts: MaxRestarts = 0,
    timeout: Timeout = 600.0,
    out: Out = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a detector and evaluate it.

    CONFIG is a shipped recipe (ctnet config list) or a .yaml file; any setting can follow as dotted.key=value. Without
    CONFIG it is centernet_res18_lateral, or demo when there is no --data either; with --weights it is finetune.

    Examples:
    ctnet train centernet_dla34 --data PATH --image-size 512 augment.flip_vertical=0.5

    ctnet train --resume last

    ctnet train --nproc 8 --data PATH
    """
    flags = _flags(data, image_size, allow_background, epochs, max_steps, batch_size, global_batch, lr, seed, precision)
    fixed = {"--weights": weights, "--backbone-weights": backbone_weights, "--out": out}
    _check_resume(resume, arguments, flags, fixed, accept_changed_data=accept_changed_data)
    launch = _launch_options(device, nproc, nnodes, node_rank, rdzv_endpoint, max_restarts, timeout, port)
    from ctnet.engine.processes.failure import reporting

    plan = _profile_plan(profile_dir, profile_steps, asked=profile)
    run = None if resume in (None, "last") else Path(str(resume))
    with reporting() as rank_info:
        recipe = None if resume else _recipe(arguments, data, weights, backbone_weights, flags, rank_info)
        if launch is not None:
            _launch(launch, rank_info, device, recipe, out, run)
            return
        start = _resumed(run, data, epochs, max_steps, accept_changed_data, plan)
        if recipe is not None:
            start = _new(recipe, out, weights, backbone_weights, plan, verify)
        _run_here(start, device, rank_info, timeout, as_json)


def _check_resume(
    resume: str | None, arguments: list[str] | None, flags: dict[str, Any], files: dict[str, Any], *,
    accept_changed_data: bool,
) -> None:  # fmt: skip
    """Raise ConfigError for options that do not go with `--resume`, or without it."""
    if resume is not None:
        _refuse_changes(arguments, flags, files)
    elif accept_changed_data:
        raise ConfigError("--accept-changed-data goes with --resume")


LaunchOptions = tuple[str, int, int, str | None, int, float, int | None]


def _launch_options(
    device: str, nproc: str | None, nnodes: int, node_rank: int, rdzv_endpoint: str | None, max_restarts: int,
    timeout: float, port: int | None,
) -> LaunchOptions | None:  # fmt: skip
    """Return the arguments of a `LaunchPlan`, None where no processes are to be started."""
    if "," in device and nproc is None:
        nproc = "auto"  # as many as the list has
    if nproc is not None:
        return nproc, nnodes, node_rank, rdzv_endpoint, max_restarts, timeout, port
    if (nnodes, node_rank, rdzv_endpoint, port, max_restarts) != (1, 0, None, None, 0):
        raise ConfigError("--nnodes, --node-rank, --rdzv-endpoint, --port and --max-restarts go with --nproc")
    return None


def _recipe(
    arguments: list[str] | None, data: str | None, weights: Path | None, backbone: str | None, flags: dict[str, Any],
    rank_info: RankInfo,
) -> Recipe:  # fmt: skip
    """Return the recipe to train by: the one that is named, or what fits the weights, or the default.

    The process that leads warns of settings without effect.
    """
    from ctnet.config import FINE_TUNING_RECIPE, FINE_TUNING_RECIPES
    from ctnet.config.effects import without_effect

    named, overrides = split_arguments(arguments, "")
    if named in ("", FINE_TUNING_RECIPE, *FINE_TUNING_RECIPES.values()) and weights is not None:
        from ctnet.weights.opening import fine_tuning_recipe

        loaded = fine_tuning_recipe(weights, overrides, flags)
    else:
        loaded = _named_recipe(arguments, named, data, backbone, flags)
    for sentence in without_effect(loaded.recipe, loaded.sources, named) if rank_info.leads else ():
        say(f"warning: {sentence}", err=True)
    return loaded.recipe


def _named_recipe(
    arguments: list[str] | None, named: str, data: str | None, backbone: str | None, flags: dict[str, Any]
) -> LoadedRecipe:
    from ctnet.config import FINE_TUNING_RECIPE, load_recipe

    brought = None
    if not named and backbone:
        gentle = load_recipe(FINE_TUNING_RECIPE).recipe.optimizer.model_dump()
        brought = (f"--backbone-weights {backbone}", {"optimizer": gentle})
    return load_recipe(*split_training_arguments(arguments, data), flags, brought=brought)


def _flags(
    data: str | None, image_size: str | None, allow_background: bool | None, epochs: int | None, max_steps: int | None,
    batch_size: int | None, global_batch: int | None, lr: float | None, seed: int | None, precision: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the values of options by option and dotted key; None where an option is not given."""
    return {
        "--data data.path": data,
        "--image-size data.image_size": parse_image_size(image_size),
        "--allow-background data.allow_background": allow_background,
        "--epochs schedule.epochs": epochs,
        "--max-steps train.max_steps": max_steps,
        "--batch-size train.batch_size": batch_size,
        "--global-batch train.global_batch": global_batch,
        "--lr optimizer.lr": lr,
        "--lr optimizer.lr_scaling": None if lr is None else "none",
        "--seed seed": seed,
        "--precision train.amp": precision,
    }


def _profile_plan(folder: Path | None, steps: str | None, *, asked: bool) -> ProfilePlan | None:
    """Return which steps to profile, None where no option asks for it. Raises ConfigError for steps that are none."""
    if not asked and folder is None and steps is None:
        return None
    from ctnet.engine.profile import ProfilePlan

    first, dash, last = (steps or f"{ProfilePlan.first}-{ProfilePlan.last}").partition("-")
    last = last if dash else first
    if not all(word.isdecimal() and len(word) < 10 for word in (first, last)) or not 1 <= int(first) <= int(last):
        raise ConfigError("--profile-steps is FIRST-LAST, steps counted from 1", got=steps)
    return ProfilePlan(int(first), int(last), folder)


Start = Callable[["Reporter", "OpenDevice", "World"], dict[str, Any]]


def _new(
    recipe: Recipe,
    out: Path | None,
    weights: Path | None,
    backbone_weights: str | None,
    profile: ProfilePlan | None,
    verify: bool,
) -> Start:
    from ctnet.engine import train as engine

    options = engine.RunOptions(out, weights, backbone_weights, profile, verify)
    return lambda reporter, opened, world: engine.train(recipe, options, reporter, opened, world)


def _resumed(
    run: Path | None, data: str | None, epochs: int | None, max_steps: int | None, accept_changed_data: bool,
    profile: ProfilePlan | None,
) -> Start:  # fmt: skip
    from ctnet.engine import train as engine

    moved = None if data is None else Path(data)
    return lambda reporter, opened, world: engine.resume(
        run,
        reporter,
        opened,
        world,
        data=moved,
        epochs=epochs,
        max_steps=max_steps,
        accept_changed_data=accept_changed_data,
        profile=profile,
    )


def _run_here(start: Start, device: str, rank_info: RankInfo, timeout: float, as_json: bool) -> None:
    """Train in this process, alone or as one of several; rank 0 prints the summary."""
    from ctnet.engine.processes.world import process_group

    with _reporter(leads=rank_info.leads) as reporter, process_group(device, rank_info, timeout) as (world, opened):
        summary = start(reporter, opened, world)
    if rank_info.leads:
        _print_summary(summary, as_json)


def _reporter(*, leads: bool) -> AbstractContextManager[Reporter]:
    from ctnet.cli.reporter import ConsoleReporter
    from ctnet.engine.report import Silence

    return ConsoleReporter() if leads else nullcontext(Silence())


def _launch(
    options: LaunchOptions, rank_info: RankInfo, device: str,
    recipe: Recipe | None, out: Path | None, run: Path | None,
) -> None:  # fmt: skip
    """Start the processes with this command line, without the launcher's options and with the run folder."""
    from ctnet.engine.processes.launch import LaunchPlan, folder_to_fill, folder_to_resume, launch

    processes.refuse_nested(rank_info)
    plan = LaunchPlan(*options)
    plan.check()
    number = plan.processes(device) * plan.nnodes
    if recipe is None:
        flag, folder = "--resume", folder_to_resume(plan, run)
    else:
        recipe.train.images_per_process(number)  # raises where they cannot share the batch
        flag, folder = "--out", folder_to_fill(plan, recipe, out)
    replaced = (*_LAUNCHER_FLAGS, flag) if folder is not None else _LAUNCHER_FLAGS
    command = processes.without(sys.argv[1:], replaced)
    launch(plan, device, [*command, *([flag, str(folder)] if folder is not None else [])])


def _refuse_changes(arguments: list[str] | None, flags: dict[str, Any], files: dict[str, Any]) -> None:
    given = [*(arguments or [])]
    kept = ("--data", "--epochs", "--max-steps")
    given += [key.split()[0] for key, value in flags.items() if value is not None and key.split()[0] not in kept]
    given += [flag for flag, value in files.items() if value is not None]
    if given:
        raise ConfigError(
            "a resumed run keeps its settings",
            got=" ".join(given),
            hint="--resume goes with --device, --data (if it moved), --epochs and --max-steps (another length), "
            "--accept-changed-data, --profile and --json only; start a new run with --weights "
            "RUN/checkpoints/best.safetensors to change more",
        )


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    from ctnet.eval.coco import percent
    from ctnet.eval.scorer import COCO, KEYPOINTS

    name = KEYPOINTS.primary if KEYPOINTS.primary in summary else COCO.primary
    say(f"run      {summary['run']}")
    best = Path(summary["run"]) / "checkpoints" / "best.safetensors"
    where = f"  ({best})" if best.is_file() else ""
    say(f"best     {name} {percent(summary[name])} at step {summary['best_step']}{where}")
    say(f"speed    {summary['images_per_s']:.1f} images/s, {100 * summary['data_wait']:.0f} % waiting for data")
    say(f"time     {summary['wall_s'] / 60:.1f} min")
    say(f"page     {summary['run']}/index.html")
    if summary["report"]:
        say(f"report   {summary['report']}")
    say(f"next     ctnet predict --weights {best} IMAGE...", f"         ctnet export onnx --weights {best}")
