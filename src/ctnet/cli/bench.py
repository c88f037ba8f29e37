"""ctnet bench: how fast inference, training and loading are on this machine, beside its limit and a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctnet.cli.arguments import Arguments, PrecisionOption, parse_image_size, split_arguments, writable_folder
from ctnet.cli.bench_table import print_document
from ctnet.cli.console import say
from ctnet.errors import ConfigError, CtnetError

if TYPE_CHECKING:
    from ctnet.bench.gates import Gate
    from ctnet.bench.references import Reference
    from ctnet.data.image import Image
    from ctnet.types import AnnotationSet

app = typer.Typer(help="Measure inference, training steps and loading, against this machine's limit and a baseline.")

INPUT, FIGURES, OUTPUT = "Subject", "Figures", "Output"

ConfigName = Annotated[
    str | None, typer.Option(metavar="CONFIG", help="Recipe (default: centernet_resdcn18)", rich_help_panel=INPUT)
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", rich_help_panel=INPUT,
        help="Weights or an exported file, of which only its runtime is measured (default: random weights)",
    ),
]  # fmt: skip
DataPath = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Pictures or a data set (default: the demo)", rich_help_panel=INPUT),
]
ImageSize = Annotated[
    str | None, typer.Option(metavar="N|HxW", help="Input (default: the recipe's)", rich_help_panel=INPUT)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or a plug-in; add :N for a card", rich_help_panel=FIGURES)]
Runtimes = Annotated[
    str | None,
    typer.Option(
        metavar="LIST", rich_help_panel=FIGURES,
        help="Of torch, compiled, onnxruntime, openvino, pt2, executorch (default: all but the last two)",
    ),
]  # fmt: skip
BatchSizes = Annotated[str, typer.Option(metavar="LIST", help="Pictures in a batch", rich_help_panel=FIGURES)]
Warmup = Annotated[int, typer.Option(min=0, help="Runs before the first timed one", rich_help_panel=FIGURES)]
Timed = Annotated[
    int, typer.Option("--iterations", min=1, help="Timed runs of each batch size", rich_help_panel=FIGURES)
]
BaselineFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="An earlier run's JSON to compare with", rich_help_panel=OUTPUT)
]
MaxRegress = Annotated[
    str | None,
    typer.Option(metavar="PART", help="Slower by more is exit code 3 (default: 5%)", rich_help_panel=OUTPUT),
]
ReferenceName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Published figures to show beside: 310p", rich_help_panel=OUTPUT)
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        callback=writable_folder,
        help="Write bench.json, bench.csv, bench.png",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document", rich_help_panel=OUTPUT)]

PICTURES = 32  # distinct ones; larger batches show some twice


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    config: ConfigName = None,
    weights: WeightsFile = None,
    data: DataPath = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    runtimes: Runtimes = None,
    precision: PrecisionOption = "auto",
    batch_sizes: BatchSizes = "1,4,8,16,32",
    warmup: Warmup = 3,
    iterations: Timed = 20,
    baseline: BaselineFile = None,
    max_regress: MaxRegress = None,
    reference: ReferenceName = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure inference by each runtime and batch size: images/s, latency and its parts, memory, part of the limit.

    Each runtime runs in a process of its own and must say what torch says before it is timed; all take turns. The limit
    is the rate of matrix products, measured here. One that is missing or fails is a row with its reason.

    Examples:
    ctnet bench --batch-sizes 1,8 --json > before.json

    ctnet bench --batch-sizes 1,8 --baseline before.json --max-regress 5%

    ctnet bench --weights best.safetensors --runtimes torch,openvino

    ctnet bench train, ctnet bench data: training step and loader; ctnet bench align: the losses of two devices

    Exit codes: 0 done, 2 wrong flag, 3 slower than the baseline or unusable file, 4 an asked-for package is missing.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    from ctnet.bench.document import bench_document
    from ctnet.bench.inference import Plan, measure_inference
    from ctnet.bench.references import reference_named
    from ctnet.bench.runtimes import DEFAULT_RUNTIMES, parse_counts, parse_runtimes, runtime_of
    from ctnet.bench.subject import open_subject
    from ctnet.bench.timing import Iterations
    from ctnet.devices import open_device
    from ctnet.predict.sources import some_pictures

    asked = None if runtimes is None else parse_runtimes(runtimes)
    batches = parse_counts(batch_sizes, "--batch-sizes")
    gate = _Baseline("inference", baseline, max_regress)
    published = None if reference is None else reference_named(reference)
    opened = open_device(device)
    subject = open_subject(config, weights, parse_image_size(image_size))
    gate.check(subject.to_dict())
    for note in subject.notes:
        tell(note)
    names = asked or ((runtime_of(subject.exported[1]),) if subject.exported else DEFAULT_RUNTIMES)
    runs = Iterations(warmup, iterations)
    pictures = some_pictures(data, PICTURES)
    found = measure_inference(subject, Plan(names, batches, precision, runs), opened, pictures, tell)
    if len(names) == 1 and len(found.failures) == 1 and not any(row.images_per_s for row in found.rows):
        raise found.failures[names[0]]
    settings = {"pictures": len(pictures), "data": str(pictures[0].parent), "precision": precision}
    document = bench_document("inference", subject.to_dict(), settings, runs, opened, found.rates, found.rows)
    _finish(document, gate, published, out, as_json)
    _require_measured(asked or (), found.failures, {row.runtime for row in found.rows if row.images_per_s})


@app.command()
def train(
    arguments: Arguments = None,
    data: DataPath = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    batch_sizes: BatchSizes = "8",
    warmup: Warmup = 3,
    iterations: Timed = 20,
    baseline: BaselineFile = None,
    max_regress: MaxRegress = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure a training step without loading: forward, loss, backward, update.

    Example: ctnet bench train centernet_dla34 --batch-sizes 4,8 train.amp=off

    Exit codes: 0 done, 2 wrong flag, 3 slower than the baseline or unusable data, 4 missing device.
    """
    from ctnet.bench.document import bench_document
    from ctnet.bench.operations import operations_per_image
    from ctnet.bench.runtimes import parse_counts
    from ctnet.bench.timing import Iterations
    from ctnet.bench.training import measure_training
    from ctnet.config import load_recipe
    from ctnet.devices import open_device

    batches = parse_counts(batch_sizes, "--batch-sizes")
    gate = _Baseline("train", baseline, max_regress)
    name, overrides = split_arguments(arguments)
    flags = {"--data data.path": data and str(data), "--image-size data.image_size": parse_image_size(image_size)}
    recipe = load_recipe(name, overrides, flags).recipe
    annotations = open_training(recipe.data.path, recipe.data.train_split)
    classes = len(annotations.categories)
    operations = operations_per_image(recipe.model, classes, recipe.data.image_size)
    subject = subject_of(recipe.name, classes, recipe.data.image_size, operations_per_image=operations)
    gate.check(subject)
    runs, opened = Iterations(warmup, iterations), open_device(device)
    found = measure_training(annotations, recipe, batches, runs, opened, tell)
    settings = {"data": str(annotations.source), "amp": recipe.train.amp}
    document = bench_document("train", subject, settings, runs, opened, found.rates, found.rows)
    _finish(document, gate, None, out, as_json)


@app.command("data")
def data_command(
    arguments: Arguments = None,
    data: DataPath = None,
    image_size: ImageSize = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures in a batch", rich_help_panel=INPUT)] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="LIST", help="Processes (default: 0 and those of training)")
    ] = None,
    warmup: Warmup = 3,
    iterations: Timed = 20,
    baseline: BaselineFile = None,
    max_regress: MaxRegress = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Measure the loader: training samples a second, by its number of processes.

    Example: ctnet bench data --data PATH --workers 0,1,2,4

    Exit codes: 0 done, 2 wrong flag, 3 slower than the baseline or unusable data.
    """
    from ctnet.bench.document import bench_document
    from ctnet.bench.loading import measure_loading
    from ctnet.bench.runtimes import parse_counts
    from ctnet.bench.timing import Iterations
    from ctnet.config import load_recipe
    from ctnet.data.loader import default_workers
    from ctnet.devices import open_device

    gate = _Baseline("data", baseline, max_regress)
    name, overrides = split_arguments(arguments)
    flags = {
        "--data data.path": data and str(data),
        "--image-size data.image_size": parse_image_size(image_size),
        "--batch-size train.batch_size": batch_size,
    }
    recipe = load_recipe(name, overrides, flags).recipe
    usual = default_workers() if recipe.data.workers is None else recipe.data.workers
    counts = parse_counts(workers or f"0,{usual}", "--workers", least=0)
    annotations = open_training(recipe.data.path, recipe.data.train_split)
    subject = subject_of(recipe.name, len(annotations.categories), recipe.data.image_size)
    gate.check(subject)
    runs = Iterations(warmup, iterations)
    rows = measure_loading(annotations, recipe, counts, runs, tell)
    settings = {"data": str(annotations.source), "pictures": len(annotations.images)}
    document = bench_document("data", subject, settings, runs, open_device("cpu"), {}, rows)
    _finish(document, gate, None, out, as_json)


class _Baseline:
    """What `--baseline` and `--max-regress` ask for; wrong ones are refused before anything is measured."""

    def __init__(self, kind: str, file: Path | None, max_regress: str | None) -> None:
        from ctnet.bench.gates import parse_max_regress, read_baseline

        if file is None and max_regress is not None:
            raise ConfigError("--max-regress compares with --baseline FILE", got=f"--max-regress {max_regress}")
        self.max_regress = parse_max_regress(max_regress or "5%")
        self.content = None if file is None else read_baseline(file, kind)

    def check(self, subject: Mapping[str, Any]) -> None:
        """Raise BenchError when the baseline is of something else."""
        from ctnet.bench.gates import require_same_subject

        if self.content is not None:
            require_same_subject(self.content, subject)

    def judge(self, document: Mapping[str, Any]) -> Gate | None:
        """Return the comparison, None without a baseline, after a warning about another machine."""
        from ctnet.bench.gates import compare, other_machine

        if self.content is None:
            return None
        for difference in other_machine(self.content, document["machine"]):
            tell(f"warning: the baseline is of another machine: {difference}")
        return compare(self.content, document, self.max_regress)


def _finish(
    document: dict[str, Any], baseline: _Baseline, published: Reference | None, out: Path | None, as_json: bool
) -> None:
    """Print and write the document. Raises BenchError when it does not reach its baseline."""
    from ctnet.bench.plot import speed_plot

    gate = baseline.judge(document)
    document["reference"] = None if published is None else published.to_dict()
    document["gate"] = None if gate is None else gate.to_dict()
    if out is not None:
        write_out(out, document, speed_plot(document, published))
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        print_document(document)
    if gate is not None:
        gate.require()


def write_out(folder: Path, document: Mapping[str, Any], picture: Image) -> None:
    """Write a document as JSON, its rows as CSV and its picture."""
    from ctnet.bench.document import to_csv
    from ctnet.data.image import write_image
    from ctnet.files import write_file

    write_file(folder / "bench.json", f"{json.dumps(document, indent=2)}\n".encode())
    write_file(folder / "bench.csv", to_csv(document).encode())
    write_image(folder / "bench.png", picture)
    tell(f"written to {folder}")


def _require_measured(asked: Sequence[str], failures: Mapping[str, CtnetError], measured: set[str]) -> None:
    """Raise the error of the first runtime that was asked for by name and never ran."""
    for runtime in asked:
        if runtime in failures and runtime not in measured:
            raise failures[runtime]


def _refuse_options_before(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.removeprefix("as_").replace("_", "-")
            raise ConfigError(f"options follow `{context.invoked_subcommand}`", got=flag)


def open_training(path: str | None, split: str) -> AnnotationSet:
    """Return the pictures to train on, those of the demo without a path; warnings are told."""
    from ctnet.data.dataset import check_usable, open_dataset
    from ctnet.data.demo import demo_folder

    annotations = open_dataset(path or demo_folder(), split)
    for warning in check_usable(annotations):
        tell(f"warning: {warning}")
    return annotations


def subject_of(recipe: str, classes: int, image_size: tuple[int, int], **more: object) -> dict[str, Any]:
    """Return what is measured, JSON-ready."""
    return {"recipe": recipe, "classes": classes, "image_size": list(image_size), **more}


def tell(sentence: str) -> None:
    """Print a line on stderr."""
    say(sentence, err=True)
