"""ctnet eval: COCO metrics of a detector on one split, with the protocol they were measured by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from ctnet.cli.arguments import AllowPartial, Compile, Config, PrecisionOption, writable_file, writable_folder
from ctnet.cli.console import Terminal, say
from ctnet.cli.progress import progress_bar
from ctnet.cli.testing import BatchSize, Flip, ImageSize, KeepRes, Nms, Scales, tested

if TYPE_CHECKING:
    from ctnet.config import Evaluation, Recipe
    from ctnet.eval.coco import CocoMetrics
    from ctnet.models.detector import Detector
    from ctnet.types import AnnotationSet, Detections


Weights = Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint, weights or exported file of a detector")]
DataPath = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Data set (default: the recipe's, else the built-in demo set)"),
]
Split = Annotated[str | None, typer.Option(help="Split to score (default: the recipe's val_split)")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, npu, sdaa or a plug-in; add :N for a card")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes")]
SaveResults = Annotated[
    Path | None, typer.Option(metavar="FILE", callback=writable_file, help="Write the detections as COCO results")
]
Against = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Score these weights too and print both, such as an export's origin")
]
Report = Annotated[
    Path | None,
    typer.Option(metavar="DIR", callback=writable_folder, help="Write curves, confusion and worst pictures"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; metrics in 0..1")]


def evaluate_command(
    weights: Weights,
    data: DataPath = None,
    split: Split = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    workers: Workers = 0,
    flip: Flip = None,
    scales: Scales = None,
    keep_res: KeepRes = None,
    nms: Nms = None,
    image_size: ImageSize = None,
    against: Against = None,
    save_results: SaveResults = None,
    report: Report = None,
    precision: PrecisionOption = "auto",
    compile: Compile = False,
    config: Config = None,
    allow_partial: AllowPartial = False,
    as_json: AsJson = False,
) -> None:
    """Score a detector on annotated pictures, by the COCO metrics.

    Flags override the evaluation settings that the weights carry; the protocol is printed beside the numbers.

    Exit codes: 0 done, 2 wrong flag, 3 unusable data or weights, 4 missing device.
    """
    from ctnet.data.dataset import check_usable
    from ctnet.eval.coco import write_results
    from ctnet.eval.protocol import describe
    from ctnet.eval.report import evaluation_document, write_report
    from ctnet.export.runtime import open_detector

    detector = open_detector(weights, device, precision, compile=compile, config=config, allow_partial=allow_partial)
    for note in (*detector.notes, detector.how_it_runs()):
        say(note, err=True)
    detector, settings = tested(
        detector, batch_size=batch_size, flip=flip, scales=scales, keep_res=keep_res, nms=nms, image_size=image_size
    )
    annotation_set = _open(data, split, detector.recipe)
    warnings = check_usable(annotation_set)
    metrics, detections, more = _score(detector, annotation_set, settings, workers)
    warnings = [*warnings, *more]
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    protocol = describe(detector.recipe, settings, len(annotation_set.images), detector.precision)
    document = evaluation_document(str(weights), annotation_set, metrics, protocol, warnings)
    if save_results:
        write_results(save_results, detections, annotation_set.categories)
    if report:
        title = f"{weights.name} on {annotation_set.split}"
        page = write_report(report, annotation_set, detections, metrics, document, title)
        say(f"report: {page}", err=True)
    if against:
        # the same pictures at the same size; float32 unless told otherwise, since it is the measure of the other
        other = open_detector(against, device, "fp32" if precision == "auto" else precision)
        other = other.with_image_size(detector.recipe.data.image_size)
        theirs, _, _ = _score(other, annotation_set, settings, workers)
        document["against"] = {"weights": str(against), "precision": other.precision, "metrics": theirs.numbers()}
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_tables(document)


def _score(
    detector: Detector, annotation_set: AnnotationSet, settings: Evaluation, workers: int
) -> tuple[CocoMetrics, dict[int, Detections], tuple[str, ...]]:
    """Return what `score` returns, showing how far it is."""
    from ctnet.eval.evaluate import score

    with progress_bar("evaluate") as show:
        return score(detector, annotation_set, settings, workers, show)


def _open(data: Path | None, split: str | None, recipe: Recipe) -> AnnotationSet:
    from ctnet.data.dataset import open_dataset
    from ctnet.data.demo import demo_folder

    path = data or (Path(recipe.data.path) if recipe.data.path else demo_folder())
    return open_dataset(path, split or recipe.data.val_split)


def _print_tables(document: Mapping[str, Any]) -> None:
    """Print the protocol, the twelve numbers and the classes; numbers are times 100."""
    from ctnet.eval.coco import percent
    from ctnet.eval.protocol import sentence

    data, metrics = document["data"], document["metrics"]
    say(f"{data['path']}, {data['split']}: {data['images']} pictures, {data['boxes']} boxes")
    say(sentence(document["protocol"]))
    console = Terminal(soft_wrap=False)
    names = list(metrics)
    for half in (names[:6], names[6:]):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in half:
            table.add_column(name, justify="right", min_width=5)
        table.add_row(*(percent(metrics[name]) for name in half))
        console.print(table)
    if "against" in document:
        other = document["against"]
        both = f"AP {percent(metrics['AP'])} against {percent(other['metrics']['AP'])}"
        console.print(f"{both} of {other['weights']} ({other['precision']})")
    table = Table("class", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("boxes", "AP", "AP50"):
        table.add_column(name, justify="right", min_width=5)
    for name, row in document["per_class"].items():
        table.add_row(name, str(row["count"]), percent(row["AP"]), percent(row["AP50"]))
    console.print(table)
