"""From weights to a proven file."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from ctnet.config import recipe_from_dict
from ctnet.data.image import Image
from ctnet.errors import ConfigError, StorageError
from ctnet.export.about import About
from ctnet.export.formats import ExportFormat
from ctnet.export.graph import ExportedGraph, trace
from ctnet.export.runtime import RuntimeNetwork
from ctnet.export.verify import Verification, verify
from ctnet.models.inference import enlarged
from ctnet.weights.ctnet_file import Weights


@dataclass(frozen=True)
class ExportOptions:
    """What the file is to be. `size` and `batch` are None where it takes any; an empty size follows the recipe."""

    output: Literal["decoded", "raw"] = "decoded"
    size: tuple[int, int] | Literal["recipe"] | None = "recipe"
    batch: int | None = None
    precision: Literal["fp32", "fp16"] = "fp32"
    dcn: Literal["native", "decompose"] = "native"


@dataclass(frozen=True)
class Exported:
    """The files of an export, seconds it took, and the proof (None where it was not asked for)."""

    files: tuple[Path, ...]
    about: About
    seconds: float
    verification: Verification | None

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
        }


def export(
    network: nn.Module,
    weights: Weights,
    format: ExportFormat,
    path: Path,
    options: ExportOptions,
    pictures: Sequence[Image],
) -> Exported:
    """Write the network as a file of the format and compare it with torch on the pictures (none: no comparison).

    The file appears whole or not at all; one that fails the comparison is kept as `NAME.unverified`. Raises
    MissingExtra, ConfigError for a size the network does not take, StorageError when the disk refuses.
    """
    format.require()
    about = describe(weights, options)
    started = time.monotonic()
    with _beside(path) as folder:
        program = trace(network, about, dcn=options.dcn)
        draft = folder / path.name
        written = format.write(program, about, draft)
        seconds = time.monotonic() - started
        proof = None
        if pictures:
            exported = RuntimeNetwork(format.open(draft, None))
            proof = verify(_Reference(network, about), exported, about, pictures)
            del exported
        suffix = "" if proof is None or proof.passed else ".unverified"
        files = [file.replace(path.with_name(file.name + suffix)) for file in written]
    return Exported(tuple(files), about, seconds, proof)


def describe(weights: Weights, options: ExportOptions) -> About:
    """Return what the file will say about itself: the recipe, adapted to what the graph can do."""
    recipe = weights.recipe
    size = options.size
    if size == "recipe":
        multiple = recipe.model.size_multiple
        size = enlarged(recipe.data.image_size, recipe.evaluation.enlarge, multiple)
    data, evaluation = recipe.data, recipe.evaluation
    if size is not None:
        data = data.model_copy(update={"image_size": size})
        evaluation = evaluation.model_copy(update={"keep_res": False, "enlarge": 1.0, "scales": (1.0,)})
    if options.output == "decoded":
        evaluation = evaluation.model_copy(update={"flip": False})
    changed = recipe.model_copy(update={"data": data, "evaluation": evaluation})
    adapted = recipe_from_dict(changed.model_dump(), "export")
    return About(
        adapted, weights.categories, options.output, options.batch, size, options.precision, dict(weights.info)
    )


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
    """A folder beside a path, gone with all that is in it when the block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=".export-", dir=self.path.parent))
        except OSError as error:
            raise StorageError("cannot write there", folder=self.path.parent, got=error.strerror) from None
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def parse_batch(text: str) -> int | None:
    """Return the batch size that is meant, None for `dynamic`. Raises ConfigError."""
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("a batch size is a number above 0, or dynamic", got=text)
    return int(text)
