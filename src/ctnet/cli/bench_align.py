"""ctnet bench align: does a device train as another does?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from ctnet.cli import options
from ctnet.cli.arguments import split_training_arguments
from ctnet.cli.bench import open_training, recipe_flags, subject_of, tell, write_out
from ctnet.cli.console import Terminal
from ctnet.cli.progress import progress_bar
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.bench.curves import Run
    from ctnet.config import Recipe
    from ctnet.precision import PrecisionName
    from ctnet.types import AnnotationSet

SHOWN_STEPS = 10  # of the table, about

BatchSize = Annotated[int | None, options.DataOption(min=1, help="Images in a batch (default: the recipe's)")]
Devices = Annotated[
    str | None,
    options.DeviceOption(
        metavar="LIST", help="Two to compare, or one to record (default: cpu,auto; with --against auto)"
    ),
]
Precisions = Annotated[
    str, options.DeviceOption(metavar="LIST", help="auto, fp32 (or off), bf16 or fp16: one for all, or one for each")
]
Steps = Annotated[int | None, options.MeasureOption(min=1, help="Updates to compare (default: 100, or as recorded)")]
Tolerance = Annotated[float, options.OutputOption(metavar="PART", help="Exit 3 if the mean relative error is larger")]
Against = Annotated[
    Path | None, options.DeviceOption(metavar="FILE", help="Compare with the JSON of a run on another machine")
]


def align(
    arguments: options.Arguments = None,
    data: options.SubjectData = None,
    image_size: options.ImageSize = None,
    batch_size: BatchSize = None,
    against: Against = None,
    devices: Devices = None,
    precision: Precisions = "fp32",
    steps: Steps = None,
    tolerance: Tolerance = 0.05,
    out: options.BenchOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the same steps on two devices and compare their losses, as a table and a plot.

    Weights, images, augmentation and learning rates follow from the recipe and its seed, and are checked to be equal.
    Without CONFIG the recipe is that of ctnet train. A run with one device is recorded; --against compares with it on
    another machine, where only --data may be another path.

    Examples:
    ctnet bench align --devices cpu,npu --out align

    ctnet bench align --data PATH --devices cuda --json > cuda.json

    ctnet bench align --data PATH --devices sdaa --against cuda.json

    ctnet bench align --devices npu,npu: does a device agree with itself

    Exit codes: 0 aligned, 2 wrong option, 3 not aligned or unusable file, 4 missing device, 5 a loss is not finite.
    """
    from ctnet.bench.align import parse_devices, parse_precisions

    if not 0 < tolerance < float("inf"):
        raise ConfigError("--tolerance is a part above 0", got=tolerance, expected="0.05")
    names = parse_devices(devices or ("auto" if against else "cpu,auto"))
    runs_in = list(zip(names, parse_precisions(precision, len(names)), strict=True))
    if against is not None:
        changes = {"--image-size": image_size, "--batch-size": batch_size, "--steps": steps}
        recipe, recorded = _recorded(against, names, data, [*(arguments or []), *(k for k, v in changes.items() if v)])
        before, steps = [recorded], len(recorded.losses)
    else:
        recipe, before, steps = _recipe(arguments, data, image_size, batch_size), [], steps or 100
    annotations = open_training(recipe.data.path, recipe.data.train_split)
    runs = [*before, *_take_runs(recipe, annotations, runs_in, steps)]
    _compare(recipe, annotations, runs, tolerance, out, as_json=as_json)


def _take_runs(
    recipe: Recipe, annotations: AnnotationSet, runs_in: list[tuple[str, PrecisionName]], steps: int
) -> list[Run]:
    """Return the runs on the devices, each in its precision."""
    from ctnet.bench.align import rates, take_runs
    from ctnet.config import changed

    recipes = [(name, changed(recipe, {"train.amp": precision})) for name, precision in runs_in]
    with progress_bar("align") as show:
        return take_runs(annotations, recipes, rates(recipe, len(annotations.images), steps), tell, show)


def _compare(
    recipe: Recipe, annotations: AnnotationSet, runs: list[Run], tolerance: float, out: Path | None, *, as_json: bool
) -> None:
    """Print and write the runs. Raises BenchError when two of them are not aligned."""
    from ctnet.bench.align import peak_rate, rates
    from ctnet.bench.curves import Alignment, align_document, require_same_inputs
    from ctnet.bench.curves_plot import loss_plot

    steps, alignment = len(runs[0].losses), None
    if len(runs) == 2:
        first, second = runs
        require_same_inputs(first, second)
        alignment = Alignment(first, second, tolerance)
    subject = subject_of(recipe.name, len(annotations.categories), recipe.data.image_size)
    settings = {"data": str(annotations.source), "pictures": len(annotations.images), "steps": steps,
                "batch_size": recipe.train.images_per_process(), "seed": recipe.seed,
                "peak_lr": peak_rate(recipe)}  # fmt: skip
    lrs = rates(recipe, len(annotations.images), steps)
    document = align_document(subject, settings, recipe, lrs, runs, alignment)
    if out is not None:
        write_out(out, document, loss_plot(subject, runs, alignment))
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(document, [run.label for run in runs])
    if alignment is not None:
        alignment.require()


def _print(document: Mapping[str, Any], labels: list[str]) -> None:
    subject, settings, gate = document["subject"], document["settings"], document["gate"]
    console = Terminal()
    height, width = subject["image_size"]
    console.print(
        f"loss of {subject['recipe']}, {subject['classes']} classes, {height} x {width}, "
        f"batch {settings['batch_size']}, seed {settings['seed']}; data {settings['data']}"
    )
    for label, run in zip(labels, document["runs"].values(), strict=True):
        machine = run["machine"]
        model = f"{machine['device_name']}, " if machine["device_name"] else ""
        versions = ", ".join(f"{name} {machine['versions'].get(name)}" for name in ("ctnet", "torch"))
        console.print(f"{label}: {model}{machine['processor']}, {versions}")
    console.print(_table(document, labels))
    if gate is None:
        console.print("recorded; compare with --against FILE, the JSON of this run")
        return
    parts = ", ".join(f"{name} {value:.2g}" for name, value in gate["of_parts"].items())
    verdict = "aligned" if gate["passed"] else "NOT aligned"
    console.print(
        f"{verdict}: mean relative error {gate['mean_relative_error']:.2g}, {gate['tolerance']:g} is allowed "
        f"(largest {gate['largest_relative_error']:.2g} at step {gate['largest_at']}; with signs {gate['bias']:+.2g})"
    )
    console.print(f"of the parts: {parts}")


def _table(document: Mapping[str, Any], labels: list[str]) -> Table:
    """Return evenly spaced steps, the step of the largest error and the first above the tolerance."""
    rows, gate = document["rows"], document["gate"]
    shown = {round(part * len(rows) / SHOWN_STEPS) for part in range(1, SHOWN_STEPS + 1)} | {1}
    if gate is not None:
        shown |= {gate["largest_at"], gate["parts_at"]}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("step", "rate", *labels, *([] if gate is None else ["relative error"])):
        table.add_column(name, justify="right")
    for row in rows:
        if row["step"] not in shown:
            continue
        cells = [str(row["step"]), f"{row['lr']:.3g}", *(f"{row[role]['loss']:.6g}" for role in document["runs"])]
        error = row["relative_error"]
        apart = error is not None and error > gate["tolerance"]
        table.add_row(*cells, *([] if error is None else [f"{error:.1e}"]), style="red" if apart else "")
    return table


def _recipe(arguments: list[str] | None, data: Path | None, image_size: str | None, batch_size: int | None) -> Recipe:
    from ctnet.config import load_recipe

    if any(word.startswith("train.amp=") for word in arguments or []):
        raise ConfigError("--precision says what each device computes in", got="train.amp")
    name, overrides = split_training_arguments(arguments, data)
    return load_recipe(name, overrides, recipe_flags(data, image_size, batch_size)).recipe


def _recorded(file: Path, names: list[str], data: Path | None, changes: list[str]) -> tuple[Recipe, Run]:
    """Return the recipe and the run of a file, with `data` as the path of the data if it is given."""
    from ctnet.bench.curves import KIND, recorded_run
    from ctnet.bench.gates import read_baseline
    from ctnet.config import changed

    if changes:
        raise ConfigError(
            "a recorded run brings its settings", got=" ".join(changes), hint="--data may be another path"
        )
    if len(names) > 1:
        raise ConfigError("--against is the first device: --devices takes one", got=",".join(names))
    recipe, run = recorded_run(read_baseline(file, KIND), file)
    if data is not None:
        recipe = changed(recipe, {"data.path": str(data)})
    return recipe, run
