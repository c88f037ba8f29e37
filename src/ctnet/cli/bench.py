"""ctnet bench: the speed of inference, training and loading on this machine, beside its limit and a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctnet.cli import options, processes
from ctnet.cli.arguments import parse_image_size, split_arguments
from ctnet.cli.bench_table import print_document
from ctnet.cli.console import Commands, say
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.bench.gates import Gate
    from ctnet.bench.references import Reference
    from ctnet.bench.timing import Iterations
    from ctnet.config import Recipe
    from ctnet.data.image import Image
    from ctnet.engine.processes.rank_info import RankInfo
    from ctnet.precision import PrecisionName
    from ctnet.types import AnnotationSet


class _BenchCommands(Commands):
    """`ctnet bench`, after which a recipe may stand as after `ctnet train`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read a first word that is no command as `--config`."""
        from ctnet.config import recipe_names

        first = args[0] if args else ""
        if first not in self.commands and (first in recipe_names() or first.endswith((".yaml", ".yml"))):
            args = ["--config", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_BenchCommands,
    help="Measure inference, training steps and loading, against this machine's limit and a baseline.",
)

ConfigName = Annotated[
    str | None, options.WeightsOption(metavar="CONFIG", help="Recipe (default: centernet_res18_lateral)")
]
WeightsFile = Annotated[
    Path | None,
    options.WeightsOption(
        "--weights",
        metavar="FILE",
        help="Weights, or an exported file for its own runtime alone (default: random weights)",
    ),
]
Runtimes = Annotated[
    str | None,
    options.MeasureOption(
        metavar="LIST",
        help="Of torch, compiled, onnxruntime, openvino, pt2, executorch (default: all but the last two)",
    ),
]
ReferenceName = Annotated[
    str | None,
    options.OutputOption(metavar="NAME", help="Show published figures beside: 310p, 910, npu-centerface, ..."),
]
LoaderBatch = Annotated[
    int | None, options.MeasureOption("--batch-size", min=1, help="Images in a batch (default: the recipe's)")
]
LoaderCounts = Annotated[
    str | None, options.MeasureOption(metavar="LIST", help="Loader processes (default: 0 and those of training)")
]

IMAGES = 32  # distinct ones; larger batches repeat some


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    config: ConfigName = None,
    weights: WeightsFile = None,
    data: options.SubjectData = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    runtimes: Runtimes = None,
    precision: options.Precision = "auto",
    batch_sizes: options.BatchSizes = "1,4,8,16,32",
    warmup: options.Warmup = 3,
    iterations: options.Timed = 20,
    baseline: options.BaselineFile = None,
    max_regress: options.MaxRegress = None,
    reference: ReferenceName = None,
    trust: options.Trust = False,
    verify: options.Verify = True,
    out: options.BenchOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure inference by runtime and batch size: images/s, latency and its parts, memory, share of the limit.

    Each runtime runs in a process of its own, must equal torch's outputs before it is timed, and takes turns with the
    others. The limit is the rate of matrix products, measured here. A runtime that is missing or fails is a row with
    its reason.

    Examples:
    ctnet bench centernet_dla34 --batch-sizes 1,8

    ctnet bench --batch-sizes 1,8 --json > before.json

    ctnet bench --batch-sizes 1,8 --baseline before.json --max-regress 5%

    ctnet bench --weights best.safetensors --runtimes torch,openvino

    ctnet bench train, ctnet bench data: training step and loader; ctnet bench align: the losses of two devices

    Exit codes: 0 done, 2 wrong option, 3 slower than the baseline or unusable file, 4 a requested package is missing.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    from ctnet.bench.references import reference_named
    from ctnet.bench.runtimes import parse_counts, parse_runtimes
    from ctnet.bench.timing import Iterations

    names = None if runtimes is None else parse_runtimes(runtimes)
    batches, runs = parse_counts(batch_sizes, "--batch-sizes"), Iterations(warmup, iterations)
    finish = _Finish("inference", baseline, max_regress, out, as_json)
    finish.published = None if reference is None else reference_named(reference)
    size = parse_image_size(image_size)
    loading = {"trust": trust, "verify": verify}
    _measure_inference(config, weights, data, size, device, names, batches, precision, runs, finish, **loading)


def _measure_inference(
    config: str | None, weights: Path | None, data: Path | None, image_size: tuple[int, int] | None, device: str,
    requested: tuple[str, ...] | None, batches: tuple[int, ...], precision: PrecisionName, runs: Iterations,
    finish: _Finish, **loading: bool,
) -> None:  # fmt: skip
    """Measure, print and write. Raises the error of a runtime that was requested by name and never ran."""
    from ctnet.bench.document import bench_document
    from ctnet.bench.inference import InferencePlan, measure_inference
    from ctnet.bench.runtimes import DEFAULT_RUNTIMES, runtime_of
    from ctnet.bench.subject import open_subject
    from ctnet.devices import open_device
    from ctnet.predict.sources import some_images

    opened = open_device(device)
    subject = open_subject(config, weights, image_size, **loading)
    finish.check(subject.to_dict())
    for note in subject.notes:
        tell(note)
    names = requested or ((runtime_of(subject.exported[1]),) if subject.exported else DEFAULT_RUNTIMES)
    images = some_images(data, IMAGES)
    found = measure_inference(subject, InferencePlan(names, batches, precision, runs), opened, images, tell)
    measured = {row.runtime for row in found.rows if row.images_per_s}
    if len(names) == 1 and len(found.failures) == 1 and not measured:
        raise found.failures[names[0]]
    settings = {"pictures": len(images), "data": str(images[0].parent), "precision": precision}
    finish(bench_document("inference", subject.to_dict(), settings, runs, opened, found.rates, found.rows))
    for runtime in requested or ():
        if runtime in found.failures and runtime not in measured:
            raise found.failures[runtime]


@app.command()
def train(
    arguments: options.Arguments = None,
    data: options.SubjectData = None,
    image_size: options.ImageSize = None,
    device: options.Device = "auto",
    batch_sizes: options.BatchSizes = "8",
    warmup: options.Warmup = 3,
    iterations: options.Timed = 20,
    baseline: options.BaselineFile = None,
    max_regress: options.MaxRegress = None,
    reference: ReferenceName = None,
    nproc: processes.Nproc = None,
    out: options.BenchOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a training step without loading: forward, loss, backward, update.

    With several processes, batches are those of each, and the gradients' exchange is part of the step.

    Example: ctnet bench train centernet_dla34 --batch-sizes 4,8 train.amp=fp32

    Exit codes: 0 done, 2 wrong option, 3 slower than the baseline or unusable data, 4 missing device.
    """
    from ctnet.bench.references import reference_named
    from ctnet.bench.runtimes import parse_counts
    from ctnet.bench.timing import Iterations
    from ctnet.engine.processes.failure import reporting

    batches, runs = parse_counts(batch_sizes, "--batch-sizes"), Iterations(warmup, iterations)
    published = None if reference is None else reference_named(reference)
    with reporting() as rank_info:
        finish = _Finish("train", baseline, max_regress, out, as_json)
        if processes.launches(nproc, device, rank_info):
            return
        finish.published, finish.processes = published, rank_info.size
        recipe = _recipe(arguments, data, image_size, None)
        _measure_training(recipe, batches, runs, device, finish, rank_info)


def _measure_training(
    recipe: Recipe, batches: tuple[int, ...], runs: Iterations, device: str, finish: _Finish, rank_info: RankInfo
) -> None:
    """Measure alone, or as one of several processes, of which the first prints and writes."""
    from ctnet.bench.document import bench_document
    from ctnet.bench.operations import operations_per_image
    from ctnet.bench.training import measure_shared_training, measure_training
    from ctnet.devices import open_device
    from ctnet.engine.processes.world import process_group

    leads = rank_info.leads
    annotations = open_training(recipe.data.path, recipe.data.train_split, quiet=not leads)
    classes = len(annotations.categories)
    operations = operations_per_image(recipe.model, classes, recipe.data.image_size)
    subject = subject_of(recipe.name, classes, recipe.data.image_size, operations_per_image=operations)
    settings = {"data": str(annotations.source), "amp": recipe.train.amp, "processes": rank_info.size}
    finish.check(subject)
    if rank_info.size == 1:
        opened = open_device(device)
        found = measure_training(annotations, recipe, batches, runs, opened, tell)
    else:
        with process_group(device, rank_info, processes.TIMEOUT_S) as (world, opened):
            found = measure_shared_training(annotations, recipe, batches, runs, opened, world, tell)
    if leads:
        finish(bench_document("train", subject, settings, runs, opened, found.rates, found.rows))


@app.command("data")
def data_command(
    arguments: options.Arguments = None,
    data: options.SubjectData = None,
    image_size: options.ImageSize = None,
    batch_size: LoaderBatch = None,
    workers: LoaderCounts = None,
    warmup: options.Warmup = 3,
    iterations: options.Timed = 20,
    baseline: options.BaselineFile = None,
    max_regress: options.MaxRegress = None,
    out: options.BenchOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure the loader: training samples a second, by its number of processes.

    Example: ctnet bench data --data PATH --workers 0,1,2,4

    Exit codes: 0 done, 2 wrong option, 3 slower than the baseline or unusable data.
    """
    from ctnet.bench.document import bench_document
    from ctnet.bench.loading import measure_loading
    from ctnet.bench.runtimes import parse_counts
    from ctnet.bench.timing import Iterations
    from ctnet.data.loader import worker_count
    from ctnet.devices import open_device

    finish = _Finish("data", baseline, max_regress, out, as_json)
    recipe = _recipe(arguments, data, image_size, batch_size)
    counts = parse_counts(workers or f"0,{worker_count(recipe.data.workers)}", "--workers", least=0)
    annotations = open_training(recipe.data.path, recipe.data.train_split)
    subject = subject_of(recipe.name, len(annotations.categories), recipe.data.image_size)
    finish.check(subject)
    runs = Iterations(warmup, iterations)
    rows = measure_loading(annotations, recipe, counts, runs, tell)
    settings = {"data": str(annotations.source), "pictures": len(annotations.images)}
    finish(bench_document("data", subject, settings, runs, open_device("cpu"), {}, rows))


def _recipe(arguments: list[str] | None, data: Path | None, image_size: str | None, batch_size: int | None) -> Recipe:
    from ctnet.config import load_recipe

    name, overrides = split_arguments(arguments)
    return load_recipe(name, overrides, recipe_flags(data, image_size, batch_size)).recipe


def recipe_flags(data: Path | None, image_size: str | None, batch_size: int | None) -> dict[str, Any]:
    """Return the options that change a recipe, as `load_recipe` takes them."""
    return {
        "--data data.path": data and str(data),
        "--image-size data.image_size": parse_image_size(image_size),
        "--batch-size train.batch_size": batch_size,
    }


class _Finish:
    """Where a measurement goes: stdout, files, and the comparison with `--baseline`.

    Wrong options raise ConfigError or BenchError before anything is measured.
    """

    published: Reference | None = None
    processes = 1

    def __init__(
        self, kind: str, baseline: Path | None, max_regress: str | None, out: Path | None, as_json: bool
    ) -> None:
        from ctnet.bench.gates import parse_max_regress, read_baseline

        if baseline is None and max_regress is not None:
            raise ConfigError("--max-regress compares with --baseline FILE", got=f"--max-regress {max_regress}")
        self.max_regress = parse_max_regress(max_regress or "5%")
        self.baseline = None if baseline is None else read_baseline(baseline, kind)
        self.out, self.as_json = out, as_json

    def check(self, subject: Mapping[str, Any]) -> None:
        """Raise BenchError when the baseline measured something else."""
        from ctnet.bench.gates import require_same_subject

        if self.baseline is not None:
            require_same_subject(self.baseline, subject)

    def __call__(self, document: dict[str, Any]) -> None:
        """Print and write the document. Raises BenchError when it is slower than its baseline."""
        from ctnet.bench.plot import speed_plot

        gate = self._compare(document)
        document["reference"] = None if self.published is None else self._beside(self.published, document)
        document["gate"] = None if gate is None else gate.to_dict()
        if self.out is not None:
            write_out(self.out, document, speed_plot(document))
        if self.as_json:
            typer.echo(json.dumps(document, indent=2))
        else:
            print_document(document)
        if gate is not None:
            gate.require()

    def _beside(self, published: Reference, document: Mapping[str, Any]) -> dict[str, Any]:
        why_not = published.why_not(document["kind"], document["subject"], self.processes)
        batches = {row["batch"]: published.beside(row["batch"], self.processes) for row in document["rows"]}
        return published.to_dict(why_not, batches)

    def _compare(self, document: Mapping[str, Any]) -> Gate | None:
        """Return the comparison, None without a baseline, after a warning about another machine."""
        from ctnet.bench.gates import compare, other_machine

        if self.baseline is None:
            return None
        for difference in other_machine(self.baseline, document["machine"]):
            tell(f"warning: the baseline is of another machine: {difference}")
        return compare(self.baseline, document, self.max_regress)


def write_out(folder: Path, document: Mapping[str, Any], plot: Image) -> None:
    """Write a document as JSON, its rows as CSV and its plot."""
    from ctnet.bench.document import to_csv
    from ctnet.data.image import write_image
    from ctnet.files import write_file

    write_file(folder / "bench.json", f"{json.dumps(document, indent=2)}\n".encode())
    write_file(folder / "bench.csv", to_csv(document).encode())
    write_image(folder / "bench.png", plot)
    tell(f"written to {folder}")


def _refuse_options_before(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.removeprefix("as_").replace("_", "-")
            raise ConfigError(f"options follow `{context.invoked_subcommand}`", got=flag)


def open_training(path: str | None, split: str, *, quiet: bool = False) -> AnnotationSet:
    """Return the images to train on, those of the demo without a path; warnings go to stderr unless `quiet`."""
    from ctnet.data.checks.usable import check_usable, say_of
    from ctnet.data.dataset import open_dataset
    from ctnet.data.demo import data_or_demo

    annotations = open_dataset(data_or_demo(path), split)
    for finding in check_usable(annotations):
        if not quiet:
            tell(say_of(finding))
    return annotations


def subject_of(recipe: str, classes: int, image_size: tuple[int, int], **more: object) -> dict[str, Any]:
    """Return the subject of a measurement as JSON values."""
    return {"recipe": recipe, "classes": classes, "image_size": list(image_size), **more}


def tell(sentence: str) -> None:
    """Print a line on stderr."""
    say(sentence, err=True)
