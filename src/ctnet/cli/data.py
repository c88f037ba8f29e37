"""ctnet data: check a data set, convert it to another layout, view it, or draw the demo set."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ctnet.cli import options
from ctnet.cli.arguments import parse_image_size
from ctnet.cli.console import Terminal, say
from ctnet.cli.options import AsJson
from ctnet.cli.progress import progress_bar
from ctnet.cli.test_settings import RequestedSettings, with_test_settings
from ctnet.errors import ConfigError, CtnetError
from ctnet.terminal import printable

if TYPE_CHECKING:
    from ctnet.data.checks.boxes import Limits
    from ctnet.data.checks.check import CheckReport, SplitSummary

app = typer.Typer(no_args_is_help=True, help="Check, convert and view data sets; draw the demo set.")

DataPath = Annotated[
    Path,
    typer.Argument(help="Folder in COCO, Pascal VOC, YOLO or WIDER FACE layout, COCO .json or YAML", metavar="PATH"),
]

_MOST_CLASSES = 1500  # of a table; laying out a row takes the time of checking a hundred classes
_COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}


@app.command(epilog="Example: ctnet data check my_data --fix repaired    Exit codes: 0 no errors, 3 errors found")
def check(
    path: DataPath,
    as_json: AsJson = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Also write a repaired copy: a new folder for the set, or a .json for one; the exit code stays",
            metavar="DIR|FILE",
        ),
    ] = None,
    fix_in_place: Annotated[
        bool, typer.Option("--fix-in-place", help="Repair the set where it is; what was there is kept beside it")
    ] = False,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Decode every image")] = True,
    image_size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Network input in pixels, for boxes that are too small or too close")
    ] = "512",
) -> None:
    """List what is wrong with a data set before any time is spent on training."""
    from ctnet.data.checks import check as data_check
    from ctnet.data.checks.boxes import Limits

    if fix is not None and fix_in_place:
        raise ConfigError("--fix and --fix-in-place exclude each other", hint="--fix OUT leaves the set as it is")
    size = parse_image_size(image_size)
    assert size is not None
    limits = Limits(image_size=size)
    with progress_bar("images") as show:
        report = data_check.check(path, images=images, limits=limits, progress=show)
    if not as_json:
        _print_report(report)
    refused, fixed = None, None
    try:
        fixed = _fixed(path, None if fix_in_place else fix, limits, images) if fix or fix_in_place else None
    except CtnetError as error:
        refused = error
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), **({} if fixed is None else {"fixed": fixed})}))
    elif fixed:
        for line in fixed["done"] or ["nothing to repair"]:
            say(line)
        say(f"{fixed['file']}: {'no error is left' if not fixed['left'] else 'left: ' + '; '.join(fixed['left'])}")
    if refused is not None:
        raise refused
    if report.count("error"):
        raise typer.Exit(3)


def _fixed(path: Path, out: Path | None, limits: Limits, images: bool) -> dict[str, Any]:
    """Repair the set and check the result; return where it is, what was done, and the errors that are left."""
    from ctnet.data.checks import check as data_check
    from ctnet.data.checks import repair

    with progress_bar("repair") as show:
        done = repair.fix(path, out, show)
    with progress_bar("check the result") as show:
        report = data_check.check(out or path, images=images, limits=limits, progress=show)
    left = [finding.message for finding in report.findings if finding.severity == "error"]
    return {"file": str(out or path), "done": done, "left": left}


@app.command(epilog="Example: ctnet data convert VOCdevkit/VOC2012 --out voc_coco --link")
def convert(
    path: DataPath,
    out: Annotated[Path, typer.Option(help="New folder for annotations and images", metavar="DIR")],
    source: Annotated[
        str,
        typer.Option("--from", help="Layout of PATH: auto, coco, voc, yolo, wider; xyxy: COCO of corners"),
    ] = "auto",
    to: Annotated[str, typer.Option(help="Layout to write: coco, voc, yolo")] = "coco",
    link: Annotated[bool, typer.Option("--link", help="Link the images instead of copying them")] = False,
) -> None:
    """Write a data set in another layout."""
    from ctnet.data.convert import convert as convert_data

    warnings: list[str] = []
    with progress_bar("images") as show:
        written = convert_data(path, out, source, to=to, link=link, progress=show, warn=warnings.append)
    for warning in warnings:
        say(f"warning: {warning}", err=True)
    for split, converted in written.items():
        counts = f"{len(converted.images)} images, {converted.num_boxes} boxes"
        say(f"{converted.source}: {split}, {counts}")


@app.command(epilog="Example: ctnet data view my_data --split val --out sheet.png")
def view(
    path: DataPath,
    split: Annotated[str, typer.Option(help="Split to show")] = "train",
    out: Annotated[Path | None, typer.Option(help="Image to write (default: view_SPLIT.png)", metavar="FILE")] = None,
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of images")] = 0,
) -> None:
    """Write a contact sheet of images with their annotated boxes and key points."""
    from ctnet.data.dataset import open_dataset
    from ctnet.data.draw import annotation_sheet
    from ctnet.data.image import write_image

    sheet = annotation_sheet(open_dataset(path, split), count, seed)
    out = out or Path(f"view_{split}.png")
    write_image(out, sheet)
    say(out)


@app.command(epilog="Example: ctnet data demo --out shapes --images-train 1000")
def demo(
    out: Annotated[Path | None, typer.Option(help="New folder (default: the cached demo set)", metavar="DIR")] = None,
    images_train: Annotated[int | None, typer.Option(min=1, help="Images to train on (default: 360)")] = None,
    images_val: Annotated[int | None, typer.Option(min=1, help="Images to evaluate on (default: 80)")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the drawings (default: 0)")] = None,
    faces: Annotated[bool, typer.Option("--faces", help="Faces with five landmarks instead of shapes")] = False,
    pose: Annotated[bool, typer.Option("--pose", help="Figures with labelled joints instead of shapes")] = False,
    joints: Annotated[int | None, typer.Option(min=8, max=17, help="Joints of --pose (default: 13)")] = None,
) -> None:
    """Draw a small data set, of shapes unless --faces or --pose, and print its folder."""
    from ctnet.data.convert import require_new_folder
    from ctnet.data.demo import demo_folder, demo_of, write_demo

    if faces and pose:
        raise ConfigError("a demo set is of one kind", got="--faces --pose")
    kind = "faces" if faces else "pose" if pose else "shapes"
    drawn = demo_of(kind, joints)
    numbers = {"images_train": images_train, "images_val": images_val, "seed": seed}
    given: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    if out is None:
        if given or joints:
            raise ConfigError("the cached demo set has fixed settings", hint="add --out DIR for a set of your own")
        say(demo_folder(kind))
        return
    require_new_folder(out)
    try:
        say(write_demo(out, demo=drawn, **given))
    except KeyboardInterrupt:
        shutil.rmtree(out, ignore_errors=True)  # it was new or empty, and half a set is unusable
        raise


@app.command(epilog="Example: ctnet data bins coco prep_dataset --weights ctdet_coco_dla_2x.pth --image-size 512")
def bins(
    path: DataPath,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the files", metavar="OUT")],
    weights: options.Weights,
    split: Annotated[str, typer.Option(help="Split whose images are written")] = "val",
    aipp: Annotated[bool, typer.Option("--aipp", help="Write bytes, for a graph with AIPP, not float32")] = False,
    image_size: options.TestImageSize = None,
    config: options.Config = None,
) -> None:
    """Write the images as files of the numbers that a network sees, for ais_bench on a machine without ctnet.

    `ctnet eval --bins DIR --weights FILE` scores what it answers.
    """
    from ctnet.config import changed
    from ctnet.data.dataset import open_image_list
    from ctnet.detect.opening import load_detector
    from ctnet.eval.bins import write_bins

    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError("OUT must be a new or empty folder", got=out)
    requested = RequestedSettings(None, False, "1", False, None, image_size)
    detector, settings = with_test_settings(load_detector(weights, "cpu", "fp32", config=config), requested)
    recipe = changed(detector.recipe, {"evaluation": settings})
    images = open_image_list(path, split)
    with progress_bar("images") as show:
        say(write_bins(images, recipe, out, pixels=aipp, progress=show))


def _print_report(report: CheckReport) -> None:
    console = Terminal(soft_wrap=False)
    for split in report.splits:
        console.print(_split_table(split))
    if report.findings:
        table = Table("severity", "code", "what", title="Findings", title_justify="left")
        for finding in report.findings:
            severity = Text(finding.severity, _COLORS[finding.severity])
            hint = f"\n{finding.hint}" if finding.hint else ""
            table.add_row(severity, finding.code, Text(printable(finding.message) + hint))
        console.print(table)
    counts = [f"{report.count(s)} {s}{'' if report.count(s) == 1 else 's'}" for s in ("error", "warning")]
    console.print(", ".join(counts))


def _split_table(split: SplitSummary) -> Table:
    title = f"{split.split}: {split.images} images, {split.boxes} boxes"
    table = Table("class", "boxes", title=title, title_justify="left")
    for name, count in islice(split.classes.items(), _MOST_CLASSES):
        table.add_row(name, str(count))
    more = list(split.classes.values())[_MOST_CLASSES:]
    if more:
        table.add_row(f"and {len(more):,} classes more, listed by --json", str(sum(more)))
    table.add_section()
    for name, histogram in (("box side, px", split.box_sides), ("width : height", split.aspect_ratios)):
        filled = [f"{edges}: {count}" for edges, count in histogram.items() if count]
        table.add_row(name, "  ".join(filled))
    return table
