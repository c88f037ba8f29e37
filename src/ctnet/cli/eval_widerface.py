"""ctnet eval --protocol widerface: easy, medium and hard by the ground truth of WIDER FACE."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table

from ctnet.cli.console import Terminal, say
from ctnet.cli.progress import progress_bar
from ctnet.cli.test_settings import RequestedSettings, open_for_test
from ctnet.errors import ConfigError

if TYPE_CHECKING:
    from ctnet.eval.widerface import Float64, Image, WiderFaces


@dataclass(frozen=True)
class WiderOptions:
    """The options of the protocol."""

    ground_truth: Path | None
    results: Path | None
    save_results: Path | None
    iou: float
    skip_missing: bool
    preset: str | None
    report: Path | None
    against: Path | None


def score_widerface(
    given: WiderOptions, weights: Path | None, data: Path | None, split: str | None, device: str, workers: int,
    precision: Any, requested: RequestedSettings, loading: dict[str, Any], *, as_json: bool,
) -> None:  # fmt: skip
    """Score a detector, or the files of `--results`, and print the numbers. Raises ConfigError, DataError."""
    from ctnet.eval.widerface import SETTINGS, read_ground_truth, read_results, widerface_ap, write_result

    _require(given, weights)
    assert given.ground_truth is not None
    faces = read_ground_truth(given.ground_truth)
    protocol: dict[str, Any] = {"name": "widerface", "iou": given.iou, "skip_missing": given.skip_missing}
    if given.results is not None:
        found = read_results(given.results, faces.images)
    else:
        assert weights is not None
        found, more = _detect(
            faces, with_preset(requested, given.preset), weights, data, split, device, workers, precision, loading
        )
        protocol |= more
    if given.save_results is not None:
        for image, rows in found.items():
            write_result(given.save_results, image, rows)
        say(f"results: {given.save_results}", err=True)
    result = widerface_ap(faces, found, given.iou, skip_missing=given.skip_missing)
    document = {
        "schema": "ctnet.eval.widerface/1",
        "weights": None if weights is None else str(weights),
        "results": None if given.results is None else str(given.results),
        "protocol": protocol,
        "metrics": {name: None if isnan(result.ap[name]) else result.ap[name] for name in SETTINGS},
        "faces": dict(result.faces),
        "images": len(faces.images),
        "missing": ["/".join(image) for image in result.missing],
    }
    if result.missing:
        how = "do not count" if given.skip_missing else "count as missed (--skip-missing leaves them out)"
        first = "/".join(result.missing[0])
        missing = f"{len(result.missing)} of {len(faces.images)} images have no result, first {first}"
        say(f"warning: {missing}: their faces {how}", err=True)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(document)


def _require(given: WiderOptions, weights: Path | None) -> None:
    if given.ground_truth is None:
        raise ConfigError(
            "--protocol widerface needs --ground-truth DIR", expected="the folder of wider_face_val.mat and others"
        )
    if (weights is None) == (given.results is None):
        raise ConfigError("--protocol widerface scores a detector or files", expected="--weights FILE or --results DIR")
    for option, value in (("--report", given.report), ("--against", given.against)):
        if value is not None:
            raise ConfigError(f"{option} goes with --protocol coco", got=value)
    if given.results is not None and (given.save_results is not None or given.preset is not None):
        raise ConfigError("--results are scored as they are", got="--save-results or --preset beside it")


def with_preset(requested: RequestedSettings, preset: str | None) -> RequestedSettings:
    """Return the test settings of a preset, in which options that were given replace its own."""
    from ctnet.eval.widerface import PRESETS

    if preset is None:
        return requested
    given = {name: value for name, value in vars(requested).items() if value is not None}
    return replace(requested, **{**PRESETS[preset], **given})


def _detect(
    faces: WiderFaces, requested: RequestedSettings, weights: Path, data: Path | None, split: str | None, device: str,
    workers: int, precision: Any, loading: dict[str, Any],
) -> tuple[dict[Image, Float64], dict[str, Any]]:  # fmt: skip
    """Return the predictions of each image of the ground truth that the data has, and how they were made."""
    from ctnet.data.dataset import open_dataset
    from ctnet.eval.evaluate import evaluate
    from ctnet.eval.protocol import protocol_of, sentence
    from ctnet.eval.widerface import face_label, find_images, prediction_rows

    detector, settings = open_for_test(weights, device, precision, requested, **loading)
    path = data or detector.recipe.data.path
    if path is None:
        raise ConfigError(
            "--protocol widerface needs the images", expected="--data PATH, such as a folder of WIDER FACE"
        )
    label = face_label(detector.categories)
    images, names = find_images(open_dataset(path, split or detector.recipe.data.val_split), faces)
    with progress_bar("evaluate") as show:
        found = evaluate(detector, images, settings, workers, show)
    protocol = protocol_of(detector.recipe, settings, len(images.images), detector.precision)
    say(sentence({**protocol, "iou": "as below"}), err=True)
    return {names[key]: prediction_rows(one, label) for key, one in found.items()}, protocol


def _print(document: dict[str, Any]) -> None:
    from ctnet.eval.coco import percent

    protocol = document["protocol"]
    missing = f", {len(document['missing'])} without a result" if document["missing"] else ""
    say(f"WIDER FACE, {document['images']} images{missing}, IoU {protocol['iou']:g}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", *document["metrics"]):
        table.add_column(column, justify="right" if column else "left", min_width=5)
    table.add_row("AP", *(percent(value) for value in document["metrics"].values()))
    table.add_row("faces", *(str(count) for count in document["faces"].values()))
    Terminal(soft_wrap=False).print(table)
