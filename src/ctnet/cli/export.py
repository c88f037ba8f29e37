"""ctnet export: weights as a file for another runtime, compared with torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ctnet.cli import options
from ctnet.cli.arguments import parse_image_size
from ctnet.cli.console import say
from ctnet.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from ctnet.config import Recipe
    from ctnet.data.image import Image
    from ctnet.export.export import Exported
    from ctnet.export.verify import AgainstFloat32

GraphOption, Int8Option, OmOption, VerifyOption = (
    partial(typer.Option, rich_help_panel=panel) for panel in ("Graph", "int8", "om (Ascend)", "Verification")
)

PICTURES = 4  # on which file and torch are compared
CALIBRATED = 100  # more images change AP by less than another seed does


Format = Annotated[
    Literal["onnx", "openvino", "pt2", "executorch", "om"],
    typer.Argument(metavar="FORMAT", help="onnx, openvino, pt2, executorch or om (Ascend)"),
]
WeightsFile = Annotated[Path, options.WeightsOption(metavar="FILE", help="Weights or checkpoint of a detector")]
Out = Annotated[
    Path | None, options.OutputOption(metavar="FILE", help="New file (default: named as weights and precision)")
]
ImageSize = Annotated[
    str | None, GraphOption(metavar="N|HxW|dynamic", help="Network input in pixels (default: the test size)")
]
BatchSize = Annotated[
    str | None,
    GraphOption(
        metavar="N|dynamic", help="Images in a batch of the graph (default: dynamic); om: one number or a list, 1,4,8"
    ),
]
Decoded = Annotated[
    bool | None,
    GraphOption(
        "--decoded/--raw", help="Output boxes, scores and labels, or the maps of the heads (default: decoded; om: raw)"
    ),
]
Dcn = Annotated[
    Literal["native", "decompose"], GraphOption(help="decompose: GridSample for runtimes without DeformConv")
]
Precision = Annotated[
    Literal["fp32", "fp16", "bf16", "int8"] | None,
    GraphOption(help="Data type of the weights (default: fp32; om: fp16); bf16: onnx; int8: onnx, openvino"),
]
Calibrate = Annotated[
    Path | None,
    Int8Option(metavar="PATH", help="Images or data set that show value ranges (default: the training data)"),
]
CalibrateCount = Annotated[int | None, Int8Option(min=1, metavar="N", help="Number of these images (default: 100)")]
Data = Annotated[Path | None, Int8Option(metavar="PATH", help="Data set on which to compare AP with float32")]
SocVersion = Annotated[str | None, OmOption(metavar="NAME", help="Chip, such as Ascend310P3 (default: from npu-smi)")]
Dialect = Annotated[
    Literal["npu", "ai.onnx"] | None,
    OmOption(help="npu: opset 18 and the npu domain; ai.onnx: opset 11 for old CANN (default: npu)"),
]
Aipp = Annotated[bool, OmOption("--aipp", help="Input bytes, which the chip normalises")]
ImagesPath = Annotated[
    Path | None,
    VerifyOption(
        "--images",
        metavar="PATH",
        help="Images or data set to compare on (default: the recipe's data, else the demo set)",
    ),
]
Verify = Annotated[
    bool, VerifyOption("--verify/--no-verify", help="Compare checksums of the weights, and the file with torch")
]


def export_command(
    format: Format,
    weights: WeightsFile,
    out: Out = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = None,
    decoded: Decoded = None,
    dcn: Dcn = "native",
    precision: Precision = None,
    calibrate: Calibrate = None,
    calibrate_count: CalibrateCount = None,
    data: Data = None,
    soc_version: SocVersion = None,
    dialect: Dialect = None,
    aipp: Aipp = False,
    images: ImagesPath = None,
    check: Verify = True,
    config: options.Config = None,
    allow_partial: options.AllowPartial = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a detector as a file for another runtime and compare it with torch.

    The file carries classes, colours, sizes and test settings: ctnet eval and predict take it like weights. A file
    that differs from torch is kept as NAME.unverified. An int8 file is also timed beside its float32 one.

    Exit codes: 0 done, 2 wrong option, 3 the file differs from torch, unusable weights or atc failed, 4 a package is
    missing.
    """
    from ctnet.export.export import choose_options, export
    from ctnet.export.formats import format_named
    from ctnet.weights.opening import load_network, open_weights

    target = format_named(format)
    target.require(precision)
    size: tuple[int, int] | Literal["recipe"] | None
    size = None if image_size == "dynamic" else parse_image_size(image_size) or "recipe"
    file = target.new_file(weights, out, precision)
    loaded = open_weights(weights, config, verify=check)
    options = choose_options(
        target, decoded=decoded, size=size, batch=batch_size, precision=precision, dcn=dcn,
        calibration=_calibration(calibrate, calibrate_count, data, loaded.recipe, precision),
        soc_version=soc_version, dialect=dialect, aipp=aipp,
    )  # fmt: skip
    network, notes = load_network(loaded, weights, allow_partial=allow_partial)
    for note in notes:
        say(note, err=True)
    shown = _verification_images(images, loaded.recipe) if check else []
    say(f"exporting to {target.title}, which takes a minute", err=True)
    result = export(network, loaded, target, file, options, shown, _comparison(shown, data, loaded.recipe))
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        say(*_sentences(result))
    if result.verification is not None and not result.verification.passed:
        _refuse(result.files[0], int8=precision == "int8", nothing_seen=result.verification.detections == 0)


def _refuse(file: Path, *, int8: bool, nothing_seen: bool) -> None:
    if nothing_seen:
        raise WeightsError(
            "the network detects nothing on these images, so nothing was compared",
            file=file,
            hint="--images PATH names images of its classes, --raw compares maps, --no-verify skips the comparison",
        )
    learn = "--calibrate PATH names images more like yours, --precision fp32 needs none"
    remedy = learn if int8 else "please report it with the lines above"
    raise WeightsError(
        "the exported file differs from the network",
        file=file,
        hint=f"{remedy}; --no-verify writes it without the comparison",
    )


def _calibration(
    path: Path | None, count: int | None, data: Path | None, recipe: Recipe, precision: str | None
) -> tuple[Path, ...]:
    """Return the images given, else training images of the data set to be scored or of the recipe's.

    Raises ConfigError when there are none, and for int8 options with another precision.
    """
    from ctnet.predict.sources import some_images

    if precision != "int8":
        given = {"--calibrate": path, "--calibrate-count": count, "--data": data}
        useless = [flag for flag, value in given.items() if value is not None]
        if useless:
            raise ConfigError(f"{' '.join(useless)} means nothing without --precision int8")
        return ()
    source = path or data or _trained_on(recipe)
    if source is None:
        raise ConfigError("int8 needs images to calibrate the ranges of activations", hint="--calibrate PATH")
    return tuple(some_images(source, count or CALIBRATED, recipe.data.train_split))


def _comparison(
    images: list[Image], data: Path | None, recipe: Recipe
) -> Callable[[Path, Path], AgainstFloat32] | None:
    """Return how an int8 file is compared with its float32 file, None without images.

    Raises DataError for an unusable data set.
    """
    from ctnet.bench.int8 import compare_int8
    from ctnet.data.checks.usable import check_usable
    from ctnet.data.dataset import open_dataset

    if not images:
        return None
    annotations = open_dataset(data, recipe.data.val_split) if data else None
    if annotations:
        check_usable(annotations, learn=False)
    return partial(compare_int8, image=images[0], annotations=annotations)


def _trained_on(recipe: Recipe) -> Path | None:
    return Path(recipe.data.path) if recipe.data.path and Path(recipe.data.path).exists() else None


def _verification_images(path: Path | None, recipe: Recipe) -> list[Image]:
    """Return a few real images: those given, else of the recipe's data set where it exists, else of the demo set."""
    from ctnet.data.image import read_image
    from ctnet.predict.sources import some_images

    trained_on = _trained_on(recipe)
    split = recipe.data.val_split if trained_on and not path else "val"
    return [read_image(file) for file in some_images(path or trained_on, PICTURES, split)]


def _sentences(result: Exported) -> list[str]:
    about, proof = result.about, result.verification
    size = "any size" if about.size is None else f"{about.size[0]}x{about.size[1]}"
    batch = "any number" if about.batch is None else about.batch
    lines = [
        *(f"{file}  {file.stat().st_size / 1e6:.1f} MB" for file in result.files),
        f"input: {batch} of normalised images, {size}; output: {', '.join(about.output_names)}; {result.seconds:.0f} s",
    ]
    if proof is None:
        return [*lines, "not compared with torch", *result.notes]
    for output in proof.outputs:
        lines.append(f"{output.name:<16}largest deviation {output.absolute:.2g}, relative {output.relative:.2g}")
    if proof.detections is not None:
        lines.append(f"{proof.matched} of {proof.detections} detections are torch's, on {proof.images} images")
    if proof.against_float32:
        lines += _against(proof.against_float32)
    lines.append("verified" if proof.passed else "NOT verified")
    return [*lines, *result.notes]


def _against(cost: AgainstFloat32) -> list[str]:
    from ctnet.eval.coco import percent

    lines = [
        f"{cost.speedup:.2f} times as fast as its float32 file, {cost.batch} at a time, medians of alternating runs"
    ]
    if cost.ap_drop is not None:
        aps = f"AP {percent(cost.ap)}, float32 {percent(cost.ap_float32)}"
        lines.append(f"{aps}: a {'drop' if cost.ap_drop >= 0 else 'gain'} of {100 * abs(cost.ap_drop):.2f}")
    return lines
