"""ctnet predict: detections on pictures, folders and videos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctnet.cli.arguments import AllowPartial, Compile, Config, PrecisionOption, writable_folder
from ctnet.cli.console import say
from ctnet.cli.progress import progress_bar
from ctnet.cli.testing import BatchSize, Flip, ImageSize, KeepRes, Nms, Scales, tested
from ctnet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ctnet.predict.sources import Sources

SHOWN = 20


def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Pictures, folders, videos or quoted globs")
    ],
    weights: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint, weights or exported file of a detector")],
    score: Annotated[float, typer.Option(min=0, max=1, help="Weakest detection that is kept")] = 0.3,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=writable_folder,
            help="New or empty folder for the results (default: runs/predict/NAME-N)",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, npu, sdaa or a plug-in; add :N for a card")] = "auto",
    batch_size: BatchSize = None,
    flip: Flip = None,
    scales: Scales = None,
    keep_res: KeepRes = None,
    nms: Nms = None,
    image_size: ImageSize = None,
    precision: PrecisionOption = "auto",
    compile: Compile = False,
    config: Config = None,
    allow_partial: AllowPartial = False,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Draw the detections into copies")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the detections as JSON; writes files only with --out")
    ] = False,
) -> None:
    """Detect objects in pictures, folders and videos.

    Writes drawings and predictions.json. A picture that cannot be read is named on stderr; the rest go on. Flags
    override the test settings that the weights carry.

    Exit codes: 0 done, 2 wrong flag, 3 some pictures could not be read, 4 missing device.
    """
    from ctnet.export.runtime import open_detector
    from ctnet.files import new_numbered_folder
    from ctnet.predict.pipeline import run_predict
    from ctnet.predict.sources import open_sources

    frames = open_sources(sources)
    if out and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ConfigError("--out must be a new or empty folder", got=out)
    detector = open_detector(weights, device, precision, compile=compile, config=config, allow_partial=allow_partial)
    for note in (*detector.notes, detector.how_it_runs()):
        say(note, err=True)
    detector, settings = tested(
        detector, batch_size=batch_size, flip=flip, scales=scales, keep_res=keep_res, nms=nms, image_size=image_size
    )
    folder = out if out or as_json else new_numbered_folder(Path("runs/predict"), detector.recipe.name)
    try:
        with progress_bar("predict", frames.count_frames()) as show:
            document = run_predict(detector, frames, folder, score, draw, settings, show)
    except KeyboardInterrupt:
        if folder and (folder / "predictions.json").is_file():
            say(f"what was found so far is in {folder}", err=True)
        elif folder:
            with suppress(OSError):
                folder.rmdir()  # nothing was
        raise
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        say(*_table(document), folder)
    _report_failures(frames)


def _table(document: Mapping[str, Any]) -> list[str]:
    """Return one line a picture or video: how many of each class are in it. A long list stops early."""
    counts: dict[str, Counter[str]] = {}
    for picture in document["pictures"]:
        counter = counts.setdefault(picture["file"], Counter())
        counter.update(found["category_name"] for found in picture["detections"])
    width = max((len(file) for file in list(counts)[:SHOWN]), default=0)
    lines = [
        f"{file:<{width}}  " + (", ".join(f"{n} {name}" for name, n in counter.most_common()) or "nothing")
        for file, counter in list(counts.items())[:SHOWN]
    ]
    if len(counts) > SHOWN:
        lines.append(f"and {len(counts) - SHOWN} more in predictions.json")
    return lines


def _report_failures(frames: Sources) -> None:
    for failure in frames.failures:
        say(f"error: {failure}", err=True)
    if frames.failures:
        raise typer.Exit(DataError.exit_code)
