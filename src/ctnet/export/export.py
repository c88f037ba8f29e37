"""Export weights to a verified file."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from torch import Tensor, nn

from ctnet.codec.affine import enlarged
from ctnet.config import changed, recipe_from_dict
from ctnet.data.image import Image, read_image
from ctnet.errors import ConfigError, StorageError
from ctnet.export.about import About, Precision
from ctnet.export.atc import find_soc_version
from ctnet.export.formats import ExportFormat
from ctnet.export.graph import ExportedGraph, trace
from ctnet.export.options import Dialect, ExportOptions, OmOptions, parse_batch, parse_batches
from ctnet.export.runtime import RuntimeNetwork
from ctnet.export.trust import remember
from ctnet.export.verify import AgainstFloat32, Verification, image_input, verify
from ctnet.weights.ctnet_file import Weights


@dataclass(frozen=True)
class Exported:
    """The files of an export, seconds it took, the proof (None where it was not asked for), and notes."""

    files: tuple[Path, ...]
    about: About
    seconds: float
    verification: Verification | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {
            "schema": "ctnet.export.report/1",
            "files": [str(file) for file in self.files],
            "output": self.about.output,
            "outputs": list(self.about.output_names),
            "size": self.about.size,
            "batch": self.about.batch,
            "precision": self.about.precision,
            "seconds": round(self.seconds, 1),
            "verification": None if self.verification is None else self.verification.to_dict(),
            "notes": list(self.notes),
        }


def export(
    network: nn.Module,
    weights: Weights,
    format: ExportFormat,
    path: Path,
    options: ExportOptions,
    images: Sequence[Image],
    compare: Callable[[Path, Path], AgainstFloat32] | None = None,
) -> Exported:
    """Write the network as a file of the format and compare it with torch on the images (none: no comparison).

    `compare` gets the float32 file and the int8 file made of it. Each file appears whole or not at
    all; those that fail the comparison are kept as `NAME.unverified`.

    Raises MissingExtra, ConfigError for a size the network does not take, WeightsError for a network that the format
    has no form for, ToolFailed when the format's compiler fails, StorageError when the disk refuses.
    """
    format.require(options.precision)
    about = about_export(weights, options)
    started = time.monotonic()
    with _beside(path) as folder:
        draft, plain = folder / path.name, folder / "float32" / path.name
        written = _write(network, about, format, options, draft, plain)
        seconds = time.monotonic() - started
        proof = None
        if images:
            exported = RuntimeNetwork(format.prove(written[0]) if format.prove else format.open(draft, None))
            proof = verify(_Reference(network, about), exported.named, about, images)
            del exported
            if compare and plain.is_file():
                proof = replace(proof, against_float32=compare(plain, draft))
        suffix = "" if proof is None or proof.passed else ".unverified"
        files = [file.replace(path.with_name(file.name + suffix)) for file in written]
    made, notes = format.compile(path, options) if format.compile and not suffix else ([], [])
    if weights.recipe.evaluation.flip and not about.recipe.evaluation.flip:
        notes = [*notes, "flip test is off in this file; --raw allows it"]
    if format.is_program and not suffix and not remember(made or files):
        notes = [*notes, "the file could not be noted in CTNET_HOME as one of ctnet's own: loading it takes --trust"]
    return Exported((*files, *made), about, seconds, proof, tuple(notes))


def _write(
    network: nn.Module, about: About, format: ExportFormat, options: ExportOptions, path: Path, plain: Path
) -> list[Path]:
    """Write the files and return them; `plain` is where the float32 file goes that an int8 file is made of."""
    dcn = format.dcn if options.dcn == "native" else options.dcn
    if about.precision != "int8":
        return format.write(trace(network, about, dcn=dcn), about, path, options)
    assert format.quantize is not None
    about_plain = replace(about, precision="fp32")
    plain.parent.mkdir()
    format.write(trace(network, about_plain, dcn=dcn), about_plain, plain, options)
    return format.quantize(plain, path, about, _calibration_inputs(options.calibration, about))


def _calibration_inputs(files: Sequence[Path], about: About) -> Iterator[Tensor]:
    """Yield each image as a batch of the number that the graph takes."""
    for file in files:
        yield image_input(read_image(file), about).repeat(about.batch or 1, 1, 1, 1)


def choose_options(
    format: ExportFormat,
    *,
    decoded: bool | None,
    size: tuple[int, int] | Literal["recipe"] | None,
    batch: str | None,
    precision: Precision | None,
    dcn: Literal["native", "decompose"],
    calibration: tuple[Path, ...],
    soc_version: str | None,
    dialect: Dialect | None,
    aipp: bool,
) -> ExportOptions:
    """Return the options, None replaced by the defaults of the format.

    Raises ConfigError for what the format cannot be.
    """
    output = format.output if decoded is None else "decoded" if decoded else "raw"
    if format.compile is None:
        asked = {"--soc-version": soc_version, "--dialect": dialect, "--aipp": aipp}
        useless = [flag for flag, value in asked.items() if value]
        if useless:
            raise ConfigError(f"{' '.join(useless)} means nothing to {format.title}", hint="ctnet export om has it")
        count = parse_batch(batch or "dynamic")
        return ExportOptions(output, size, count, precision or "fp32", dcn, calibration=calibration)
    if size is None:
        raise ConfigError("an OM takes images of one size", got="--image-size dynamic", hint="--image-size 512")
    batches = parse_batches(batch or "1")
    om = OmOptions(
        batches, soc_version or find_soc_version(), dialect or "npu", "fp32" if precision == "fp32" else "fp16", aipp
    )
    return ExportOptions(output, size, None, "fp32", dcn, om)


def about_export(weights: Weights, options: ExportOptions) -> About:
    """Return the metadata of the file: the recipe, adapted to the graph."""
    recipe = weights.recipe
    size = options.size
    if size == "recipe":
        multiple = recipe.model.size_multiple
        size = enlarged(recipe.data.image_size, recipe.evaluation.test_scale, multiple)
    values: dict[str, object] = {}
    if size is not None:
        values |= {"data.image_size": size}
        values |= {
            "evaluation.keep_res": False,
            "evaluation.stretch": False,
            "evaluation.test_scale": 1.0,
            "evaluation.scales": (1.0,),
        }
    if options.output == "decoded":
        values |= {"evaluation.flip": False}
    adapted = recipe_from_dict(changed(recipe, values).model_dump(), "export")
    return About(
        adapted, weights.categories, options.output, options.batch, size, options.precision, dict(weights.info),
        keypoints=weights.keypoints,
    )  # fmt: skip


class _Reference(nn.Module):
    """torch's float32 answer, by output name."""

    def __init__(self, network: nn.Module, about: About) -> None:
        super().__init__()
        self.graph = ExportedGraph(network.cpu().float().eval(), replace(about, precision="fp32"))
        self.names = about.output_names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of a batch."""
        return dict(zip(self.names, self.graph(images), strict=True))


class _beside:
    """A temporary folder beside a path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".export-", dir=self.path.parent))
        except OSError as error:
            raise StorageError("cannot write there", folder=self.path.parent, got=error.strerror) from None
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StorageError("cannot write the file", file=self.path, got=error.strerror or error) from None
