"""`ctnet train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from ctnet.cli.arguments import Arguments, parse_image_size, split_arguments
from ctnet.errors import ConfigError

_DATA, _OPTIMISATION, _DEVICE, _OUTPUT = "Data", "Optimisation", "Device", "Output"


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
Profile = Annotated[
    bool, Option("--profile", help="write a torch profiler trace of four steps", rich_help_panel=_DEVICE)
]
Out = Annotated[Path | None, Option(help="run folder; default runs/train/NAME-N", rich_help_panel=_OUTPUT)]
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
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Train a detector and evaluate it.

    CONFIG is a shipped recipe (ctnet config list) or a .yaml file; any setting can follow as dotted.key=value. Without
    CONFIG it is centernet_resdcn18, or demo when there is no --data either.

    Examples:
    ctnet train

    ctnet train centernet_resdcn18 --data PATH --image-size 512 augment.flip_vertical=0.5

    ctnet train --resume last
    """
    has_data = data is not None or any(word.startswith("data.path=") for word in arguments or [])
    name, overrides = split_arguments(arguments, "centernet_resdcn18" if has_data else "demo")
    flags: dict[str, Any] = {
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
    if resume is not None:
        _refuse_changes(arguments, flags, {"--weights": weights, "--backbone-weights": backbone_weights, "--out": out})

    from ctnet.cli.reporter import ConsoleReporter
    from ctnet.config import load_recipe

    with ConsoleReporter() as reporter:
        if resume is not None:
            from ctnet.engine import train as engine

            run = None if resume == "last" else Path(resume)
            moved = None if data is None else Path(data)
            summary = engine.resume(run, reporter, device=device, data=moved, max_steps=max_steps, profile=profile)
        else:
            recipe = load_recipe(name, overrides, flags).recipe
            from ctnet.engine import train as engine

            options = engine.RunOptions(device, out, weights, backbone_weights, profile)
            summary = engine.train(recipe, options, reporter)
    _print_summary(summary, as_json)


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
    print(f"run      {summary['run']}")
    print(f"best     AP {ap} at step {summary['best_step']}  ({summary['run']}/checkpoints/best.safetensors)")
    print(f"speed    {summary['images_per_s']:.1f} images/s, {100 * summary['data_wait']:.0f} % waiting for data")
    print(f"time     {summary['wall_s'] / 60:.1f} min")
    if summary["report"]:
        print(f"report   {summary['report']}")
