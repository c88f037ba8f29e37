"""ctnet eval: COCO or WIDER FACE metrics of a detector on one split, with the protocol they were measured by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer
from rich import box
from rich.table import Table
from typer import Option

from ctnet.cli import options, processes
from ctnet.cli.arguments import writable_file, writable_folder
from ctnet.cli.console import Terminal, say
from ctnet.cli.eval_widerface import WiderOptions, score_widerface
from ctnet.cli.progress import progress_bar
from ctnet.cli.test_settings import RequestedSettings, open_for_test
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.config import Evaluation, Recipe
    from ctnet.detect.detector import Detector
    from ctnet.eval.coco import CocoMetrics
    from ctnet.precision import PrecisionName
    from ctnet.types import AnnotationSet, Detections, Share


DataPath = Annotated[
    Path | None, options.DataOption(metavar="PATH", help="Data set (default: the recipe's, else the demo set)")
]
Split = Annotated[str | None, options.DataOption(help="Split to score (default: the recipe's val_split)")]
Workers = Annotated[int, options.DataOption(min=0, help="Loader processes")]
Weights = Annotated[
    Path | None,
    options.WeightsOption(metavar="FILE", help="Weights, checkpoint or exported file of a detector"),
]
SaveResults = Annotated[
    Path | None,
    options.OutputOption(metavar="FILE|DIR", help="Write the detections as COCO results; widerface: a file an image"),
]
ProtocolOption = partial(Option, rich_help_panel="Protocol")
Protocol = Annotated[Literal["coco", "widerface"], ProtocolOption(help="Whose numbers to take")]
GroundTruth = Annotated[
    Path | None, ProtocolOption(metavar="DIR", help="widerface: the folder of wider_face_val.mat and its settings")
]
Results = Annotated[Path | None, ProtocolOption(metavar="DIR", help="widerface: score these files, without a network")]
Iou = Annotated[
    float | None, ProtocolOption(min=0.05, max=0.95, help="widerface: least overlap (default: 0.5; many ports: 0.4)")
]
SkipMissing = Annotated[
    bool, ProtocolOption("--skip-missing", help="widerface: images without a result do not count, as in many ports")
]
Preset = Annotated[
    Literal["fixed", "original", "multiscale"] | None,
    ProtocolOption(help="widerface: fitted into 800 x 800, own size, or four sizes with mirror images"),
]
Submission = Annotated[
    bool,
    options.OutputOption("--submission", help="Only detect, for --save-results: the images need no annotations"),
]
Bins = Annotated[
    Path | None,
    options.DataOption(metavar="DIR", help="Score these outputs of a graph on the files of ctnet data bins"),
]
Against = Annotated[
    Path | None,
    options.OutputOption(
        metavar="FILE", help="Score these weights too and print both, such as the weights behind an exported file"
    ),
]
Report = Annotated[
    Path | None,
    options.OutputOption(
        metavar="DIR", callback=writable_folder, help="Write curves, confusion matrix and the worst images as a page"
    ),
]


def evaluate_command(
    weights: Weights = None,
    data: DataPath = None,
    split: Split = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    workers: Workers = 0,
    bins: Bins = None,
    flip: options.Flip = None,
    scales: options.Scales = None,
    keep_res: options.KeepRes = None,
    nms: options.Nms = None,
    image_size: options.TestImageSize = None,
    top_k: options.TopK = None,
    protocol: Protocol = "coco",
    ground_truth: GroundTruth = None,
    results: Results = None,
    iou: Iou = None,
    skip_missing: SkipMissing = False,
    preset: Preset = None,
    tiles: options.Tiles = None,
    overlap: options.Overlap = None,
    against: Against = None,
    save_results: SaveResults = None,
    submission: Submission = False,
    report: Report = None,
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    config: options.Config = None,
    allow_partial: options.AllowPartial = False,
    trust: options.Trust = False,
    verify: options.Verify = True,
    nproc: processes.Nproc = None,
    as_json: options.AsJson = False,
) -> None:
    """Score a detector on annotated images: by COCO's metrics, with key points where there are some, or WIDER FACE's.

    Options override the test settings of the weights; the protocol is printed beside the numbers.

    Exit codes: 0 done, 2 wrong option, 3 unusable data or weights, 4 missing device.
    """
    requested = RequestedSettings(batch_size, flip, scales, keep_res, nms, image_size, tiles, overlap, top_k)
    loading: dict[str, Any] = {
        "compile": compile, "config": config, "allow_partial": allow_partial, "trust": trust, "verify": verify
    }  # fmt: skip
    if protocol == "widerface":
        given = WiderOptions(
            ground_truth, results, writable_folder(save_results), iou or 0.5, skip_missing, preset, report, against
        )
        score_widerface(given, weights, data, split, device, workers, precision, requested, loading, as_json=as_json)
        return
    of_widerface = (ground_truth, results, iou, skip_missing or None, preset)
    if any(value is not None for value in of_widerface):
        raise ConfigError("--ground-truth, --results, --iou, --skip-missing and --preset go with --protocol widerface")
    given_files = _Files(writable_file(save_results), report, against, bins, submission)
    _score_coco(weights, (data, split, workers), device, precision, requested, loading, given_files, nproc, as_json)


class _Files(NamedTuple):
    """The files and folders of the options; `bins` holds the outputs to score."""

    results: Path | None
    report: Path | None
    against: Path | None
    bins: Path | None
    submission: bool


def _score_coco(
    weights: Path | None, source: tuple[Path | None, str | None, int], device: str, precision: PrecisionName,
    requested: RequestedSettings, loading: dict[str, Any], files: _Files, nproc: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Score, or only detect, alone or in several processes. Raises ConfigError for options that do not go together."""
    if weights is None:
        raise ConfigError("a detector is needed", expected="--weights FILE")
    if files.submission and (files.results is None or files.report or files.against):
        raise ConfigError("--submission writes --save-results FILE and nothing else")
    requested = requested if files.bins is None else requested.of_one_view()

    def work(share: Share, device: str) -> None:
        if files.submission:
            _submit(weights, source, device, precision, requested, loading, share, files.results)
            return
        found = _evaluate(weights, source, device, precision, requested, files, loading, share)
        if share.rank == 0:
            _write(files.results, files.report, *found)
            typer.echo(json.dumps(found[-1], indent=2)) if as_json else _print_tables(found[-1])

    processes.in_processes(nproc, device, work)


def _evaluate(
    weights: Path, source: tuple[Path | None, str | None, int], device: str, precision: PrecisionName,
    requested: RequestedSettings, files: _Files, loading: dict[str, Any], share: Share,
) -> tuple[AnnotationSet, dict[int, Detections], CocoMetrics, dict[str, Any]]:  # fmt: skip
    """Return the annotations, detections, metrics and the document; the first process prints notes and warnings."""
    from ctnet.eval.evaluate import only
    from ctnet.eval.protocol import protocol_of
    from ctnet.eval.report import evaluation_document

    data, split, workers = source
    leads, bins, against = share.rank == 0, files.bins, files.against
    detector, settings = open_for_test(weights, device, precision, requested, notes=leads and bins is None, **loading)
    annotation_set, warnings = _open(data, split, detector.recipe)
    if bins is None:
        metrics, detections, more = _score(detector, annotation_set, settings, workers, share)
    else:
        metrics, detections, more = _score_bins(bins, detector, annotation_set, settings)
    warnings = [*warnings, *more]
    for warning in warnings if leads else ():
        say(f"warning: {warning}", err=True)
    scored = only(annotation_set, detections)
    protocol = protocol_of(detector.recipe, settings, len(scored.images), detector.precision)
    protocol["unreadable"] = len(annotation_set.images) - len(scored.images)
    document = evaluation_document(str(weights), annotation_set, metrics, protocol, warnings)
    if settings.tiles:
        whole = settings.model_copy(update={"tiles": 0})
        document["untiled"] = _score(detector, annotation_set, whole, workers, share)[0].numbers()
    if against:
        trusting = {name: loading[name] for name in ("trust", "verify")}
        document["against"] = _score_other(
            against, device, precision, detector, annotation_set, settings, workers, share, **trusting
        )
    return scored, detections, metrics, document


def _score_bins(
    bins: Path, detector: Detector, annotation_set: AnnotationSet, settings: Evaluation
) -> tuple[CocoMetrics, dict[int, Detections], tuple[str, ...]]:
    """Return the metrics of what a graph of this network has answered on another machine."""
    from ctnet.eval.bins import read_dumps
    from ctnet.eval.coco import align_categories, relabel
    from ctnet.eval.scorer import COCO

    alignment = align_categories(detector.categories, annotation_set.categories)
    detections = relabel(read_dumps(bins, annotation_set, detector, settings), alignment)
    return COCO.score(annotation_set, detections, settings.max_detections), detections, alignment.warnings


def _submit(
    weights: Path, source: tuple[Path | None, str | None, int], device: str, precision: PrecisionName,
    requested: RequestedSettings, loading: dict[str, Any], share: Share, results: Path | None,
) -> None:  # fmt: skip
    """Write the detections on images without annotations as scoring servers take them."""
    from ctnet.data.dataset import open_image_list
    from ctnet.data.demo import data_or_demo
    from ctnet.eval.coco import align_categories, relabel, write_results
    from ctnet.eval.evaluate import evaluate_shared

    data, split, workers = source
    leads = share.rank == 0
    detector, settings = open_for_test(weights, device, precision, requested, notes=leads, **loading)
    recipe = detector.recipe
    images = open_image_list(data_or_demo(data or recipe.data.path), split or recipe.data.val_split)
    alignment = align_categories(detector.categories, images.categories)
    with progress_bar("detect") if leads else nullcontext() as show:
        found = relabel(evaluate_shared(detector, images, settings, workers, show, share), alignment)
    if leads and results is not None:
        for warning in alignment.warnings:
            say(f"warning: {warning}", err=True)
        write_results(results, found, images.categories)
        say(f"{len(found)} images, {sum(map(len, found.values()))} detections in {results}")


def _write(
    results: Path | None, report: Path | None, annotation_set: AnnotationSet, detections: Mapping[int, Detections],
    metrics: CocoMetrics, document: dict[str, Any],
) -> None:  # fmt: skip
    """Write the requested files."""
    from ctnet.eval.coco import write_results
    from ctnet.eval.report import write_report

    if results:
        write_results(results, detections, annotation_set.categories)
    if report:
        title = f"{Path(document['weights']).name} on {annotation_set.split}"
        page = write_report(report, annotation_set, detections, metrics, document, title)
        say(f"report: {page}", err=True)


def _score_other(
    file: Path, device: str, precision: PrecisionName, detector: Detector, annotation_set: AnnotationSet,
    settings: Evaluation, workers: int, share: Share, **loading: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return the metrics of another file, on the same images at the same size."""
    from ctnet.detect.opening import load_detector

    # float32 is the measure of the other file unless a precision was requested
    precision = "fp32" if precision == "auto" else precision
    other = load_detector(file, device, precision, **loading).with_image_size(detector.recipe.data.image_size)
    metrics, _, _ = _score(other, annotation_set, settings, workers, share)
    return {"weights": str(file), "precision": other.precision, "metrics": metrics.numbers()}


def _score(
    detector: Detector, annotation_set: AnnotationSet, settings: Evaluation, workers: int, share: Share
) -> tuple[CocoMetrics, dict[int, Detections], tuple[str, ...]]:
    """Return what `score` returns; the first process shows its progress."""
    from ctnet.eval.evaluate import score

    with progress_bar("evaluate") if share.rank == 0 else nullcontext() as show:
        return score(detector, annotation_set, settings, workers, show, share=share)


def _open(data: Path | None, split: str | None, recipe: Recipe) -> tuple[AnnotationSet, list[str]]:
    """Return the set to score and the warnings about it."""
    from ctnet.data.checks.usable import check_usable
    from ctnet.data.dataset import open_dataset
    from ctnet.data.demo import data_or_demo

    annotation_set = open_dataset(data_or_demo(data or recipe.data.path), split or recipe.data.val_split)
    with progress_bar("check images") as show:
        findings = check_usable(annotation_set, settings=recipe.data, learn=False, progress=show)
    return annotation_set, [finding.message for finding in findings if finding.severity != "info"]


def _print_tables(document: Mapping[str, Any]) -> None:
    """Print the protocol, the numbers, the classes and the key points; numbers are times 100."""
    from ctnet.eval.coco import percent
    from ctnet.eval.protocol import sentence
    from ctnet.eval.scorer import COCO, KEYPOINTS

    scorer = KEYPOINTS if "per_point" in document else COCO
    data, metrics = document["data"], document["metrics"]
    say(f"{data['path']}, {data['split']}: {data['images']} images, {data['boxes']} boxes")
    say(sentence(document["protocol"]))
    console = Terminal(soft_wrap=False)
    names = list(metrics)
    for half in (names[start : start + 6] for start in range(0, len(names), 6)):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in half:
            table.add_column(name, justify="right", min_width=5)
        table.add_row(*(percent(metrics[name]) for name in half))
        console.print(table)
    name = scorer.primary
    if "untiled" in document:
        console.print(f"{name} {percent(metrics[name])} tiled, {percent(document['untiled'][name])} untiled")
    if "against" in document:
        other = document["against"]
        both = f"{name} {percent(metrics[name])} against {percent(other['metrics'].get(name))}"
        console.print(f"{both} of {other['weights']} ({other['precision']})")
    table = Table("class", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("boxes", *scorer.per_class):
        table.add_column(name, justify="right", min_width=5)
    for name, row in document["per_class"].items():
        table.add_row(name, str(row["count"]), *(percent(row[number]) for number in scorer.per_class))
    console.print(table)
    if "per_point" in document:
        table = Table("point", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("NME", "PCK"):
            table.add_column(name, justify="right", min_width=5)
        for name, row in document["per_point"].items():
            table.add_row(name, percent(row["NME"]), percent(row["PCK"]))
        console.print(table)
