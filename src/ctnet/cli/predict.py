"""ctnet predict: detections on images, videos and streams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctnet.cli import options, processes
from ctnet.cli.arguments import writable_folder
from ctnet.cli.console import say
from ctnet.cli.groups import grouped
from ctnet.cli.hiding import HidingOptions
from ctnet.cli.progress import progress_bar
from ctnet.cli.test_settings import RequestedSettings, open_for_test
from ctnet.errors import ConfigError, CtnetError, DataError

if TYPE_CHECKING:
    from ctnet.config import Evaluation
    from ctnet.detect.detector import Detector
    from ctnet.predict.sources import Sources
    from ctnet.types import Share

SHOWN = 20
SHOWN_SPANS = 5

SourceNames = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Images, folders, videos, quoted globs, number of a camera, http or rtsp address, or - for stdin",
    ),
]
Frames = Annotated[
    int | None, typer.Option("--frames", min=1, metavar="N", help="Read so many frames of a video or stream")
]
Track = Annotated[
    bool, options.OutputOption("--track", help="Number objects alike in all frames of a video (needs the extra track)")
]
Score = Annotated[float, options.OutputOption(min=0, max=1, help="Minimum score")]
Out = Annotated[
    Path | None,
    options.OutputOption(
        metavar="DIR",
        callback=writable_folder,
        help="New or empty folder for the results (default: runs/predict/NAME-N)",
    ),
]
Draw = Annotated[bool, options.OutputOption("--draw/--no-draw", help="Draw the detections into copies")]
AsJson = Annotated[bool, options.OutputOption("--json", help="Print one JSON document; write files only with --out")]


@grouped
def predict(
    sources: SourceNames,
    weights: options.Weights,
    hiding: HidingOptions,
    most_frames: Frames = None,
    score: Score = 0.3,
    out: Out = None,
    device: options.Device = "auto",
    batch_size: options.BatchSize = None,
    flip: options.Flip = None,
    scales: options.Scales = None,
    keep_res: options.KeepRes = None,
    nms: options.Nms = None,
    image_size: options.TestImageSize = None,
    top_k: options.TopK = None,
    tiles: options.Tiles = None,
    overlap: options.Overlap = None,
    precision: options.Precision = "auto",
    compile: options.Compile = False,
    config: options.Config = None,
    allow_partial: options.AllowPartial = False,
    trust: options.Trust = False,
    verify: options.Verify = True,
    nproc: processes.Nproc = None,
    track: Track = False,
    draw: Draw = True,
    as_json: AsJson = False,
) -> None:
    """Detect objects in images, videos and streams.

    Writes drawings, or anonymised copies, and predictions.json. A file that cannot be decoded is named on stderr; the
    others are processed. Ctrl-C ends a stream and keeps what was found. Options override the test settings of the
    weights.

    Exit codes: 0 done, 2 wrong option, 3 some files could not be read, 4 missing device or extra.
    """
    from ctnet.predict.sources import open_sources

    hiding.require_sense()
    frames = open_sources(sources, most_frames)
    say(*frames.notes(), err=True)
    requested = RequestedSettings(batch_size, flip, scales, keep_res, nms, image_size, tiles, overlap, top_k)
    loading: dict[str, Any] = {
        "compile": compile, "config": config, "allow_partial": allow_partial, "trust": trust, "verify": verify
    }  # fmt: skip
    if nproc is not None and (hiding.anonymize or hiding.crops):
        raise ConfigError("--anonymize and --crops run in one process", hint="leave --nproc out")

    def work(share: Share, device: str) -> None:
        leads = share.rank == 0
        with _new_folder(out if leads else None), _new_folder(hiding.crops if leads else None, "--crops"):
            detector, settings = open_for_test(weights, device, precision, requested, notes=leads, **loading)
            wanted = not as_json or bool(hiding.anonymize)
            with _results_folder(detector.recipe.name, out, share, wanted=wanted) as folder:
                _run(detector, settings, frames, folder, score, hiding, share, draw=draw, as_json=as_json, track=track)
        if leads:
            _report_failures(frames)

    processes.in_processes(nproc, device, work)


@contextmanager
def _results_folder(name: str, out: Path | None, share: Share, *, wanted: bool) -> Iterator[Path | None]:
    """Give all processes the folder for the results: `out`, or, where one is wanted, a new one of the first process."""
    from ctnet.files import new_numbered_folder

    new = new_numbered_folder(Path("runs/predict"), name) if wanted and out is None and share.rank == 0 else None
    with _new_folder(new):
        yield out or share.gather(new)[0]


def _run(
    detector: Detector,
    settings: Evaluation,
    frames: Sources,
    folder: Path | None,
    score: float,
    hiding: HidingOptions,
    share: Share,
    *,
    draw: bool,
    as_json: bool,
    track: bool,
) -> None:  # fmt: skip
    """Detect, write the results and, in the first process, print them."""
    from ctnet.predict.anonymize.run import run_anonymize
    from ctnet.predict.crops import Crops
    from ctnet.predict.pipeline import run_predict
    from ctnet.predict.tracks import require_trackers

    if track:
        if hiding.anonymize:
            raise ConfigError("--track has no effect with --anonymize, which follows objects anyway")
        require_trackers()
    crops = (
        Crops(hiding.crops, detector.categories, detector.family.keypoints, hiding.labels(detector.categories))
        if hiding.crops
        else None
    )
    hidden = hiding.hiding(detector.categories)
    try:
        with progress_bar("predict") if share.rank == 0 else nullcontext() as show:
            if hidden and folder:
                document = run_anonymize(detector, frames, folder, score, hidden, settings, show, crops)
            else:
                document = run_predict(
                    detector, frames, folder, score, draw, settings, show, crops, share, track=track
                )  # fmt: skip
    except KeyboardInterrupt:
        if folder and (folder / "predictions.json").is_file():
            say(f"the detections so far are in {folder}", err=True)
        raise
    if share.rank:
        return
    if hidden and folder:
        say(*_remarks(document), err=True)
    if as_json:
        typer.echo((folder / "predictions.json").read_text() if hidden and folder else json.dumps(document, indent=2))
    else:
        say(*(_lines({file["file"]: file["objects"] for file in document["files"]}) if hidden else _table(document)))
        say(folder)


def _remarks(document: Mapping[str, Any]) -> list[str]:
    """Return sentences about what was not kept of videos, and about frames that nobody can be sure of."""
    remarks = [note for file in document["files"] for note in file.get("notes", ())]
    for file in document["files"]:
        if spans := file.get("undecided"):
            first = ", ".join("{:.1f}-{:.1f} s".format(*span["seconds"]) for span in spans[:SHOWN_SPANS])
            more = f" and {len(spans) - SHOWN_SPANS} more in predictions.json" if len(spans) > SHOWN_SPANS else ""
            remarks.append(f"{file['file']}: an object was lost, so look at {first}{more}")
    return remarks


@contextmanager
def _new_folder(folder: Path | None, option: str = "--out") -> Iterator[None]:
    """Hold a new or empty folder as its only writer; remove it again if nothing was written. None holds nothing."""
    from ctnet.files import remove_leftovers
    from ctnet.lock import LOCK, only_writer

    if folder is None:
        yield
        return
    if folder.is_file():
        raise ConfigError(f"{option} must be a new or empty folder", got=folder)
    try:
        with only_writer(folder):
            remove_leftovers(folder)
            if any(path.name != LOCK for path in folder.iterdir()):
                raise ConfigError(f"{option} must be a new or empty folder", got=folder)
            yield
    except (CtnetError, KeyboardInterrupt):
        with suppress(OSError):
            folder.rmdir()
        raise


def _table(document: Mapping[str, Any]) -> list[str]:
    """Return a line per image or video with its number of objects by class, at most `SHOWN` of them."""
    counts: dict[str, Counter[str]] = {}
    for image in document["pictures"]:
        counter = counts.setdefault(image["file"], Counter())
        counter.update(found["category_name"] for found in image["detections"])
    return _lines(counts)


def _lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line per file with its numbers, at most `SHOWN` of them."""
    width = max((len(file) for file in list(counts)[:SHOWN]), default=0)
    lines = [
        f"{file:<{width}}  " + (", ".join(f"{n} {name}" for name, n in Counter(counter).most_common()) or "nothing")
        for file, counter in list(counts.items())[:SHOWN]
    ]
    if len(counts) > SHOWN:
        lines.append(f"and {len(counts) - SHOWN} more in predictions.json")
    return lines


def _report_failures(frames: Sources) -> None:
    say(*(f"note: {sentence}" for sentence in frames.remarks.sentences()), err=True)
    for failure in frames.failures:
        say(f"error: {failure}", err=True)
    if frames.failures:
        raise SystemExit(DataError.exit_code)
