"""The metadata of an exported file, so that no flag is needed to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ctnet._version import __version__
from ctnet.config import ExportMetadata, Recipe, parse_metadata
from ctnet.errors import WeightsError
from ctnet.families import Family, family_of
from ctnet.types import Category, KeypointSchema
from ctnet.weights.ctnet_file import described, read_own

SCHEMAS = "ctnet.export/"
SCHEMA = f"{SCHEMAS}1"
Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""what numbers are stored in: with `int8` most convolutions, the rest float32"""

KEY = "ctnet"  # the entry of a file's metadata that holds all this
INPUT = "images"


@dataclass(frozen=True)
class About:
    """An exported graph: its recipe, what it returns, and the shapes it takes.

    `batch` and `size` (height, width) are None where the graph takes any. `precision` is what its numbers are
    stored in; outputs are float32 always, and so is the input (N,3,H,W), unless it is `pixels` (N,H,W,3) uint8.
    """

    recipe: Recipe
    categories: tuple[Category, ...]
    output: Literal["decoded", "raw"] = "decoded"
    batch: int | None = None
    size: tuple[int, int] | None = None
    precision: Precision = "fp32"
    info: Mapping[str, Any] = field(default_factory=dict)
    pixels: bool = False
    keypoints: KeypointSchema | None = None

    @cached_property
    def family(self) -> Family:
        """The kind of detector."""
        return family_of(self.recipe, self.keypoints)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        return self.family.instance_names if self.output == "decoded" else self.family.output_names

    def to_json(self) -> str:
        """Return the text that goes into the file."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "ctnet": __version__,
                **described(self.recipe, self.categories, self.keypoints),
                "output": self.output,
                "batch": self.batch,
                "size": self.size,
                "precision": self.precision,
                "info": dict(self.info),
                "pixels": self.pixels,
            }
        )


def read_about(text: str | None, source: object) -> About:
    """Return the metadata of a file. Raises WeightsError for a file that ctnet did not export."""
    content = parse_metadata(text)
    if not isinstance(content, dict) or not str(content.get("schema")).startswith(SCHEMAS):
        raise WeightsError(
            "the file does not say what it is", file=source, expected=f"metadata of {SCHEMA}",
            hint="only files that ctnet export wrote can be run: they carry classes, colours and sizes; of others "
            "ctnet knows CenterFace's centerface.onnx alone",
        )  # fmt: skip
    read = read_own(ExportMetadata, content, SCHEMA, source)
    return About(
        read.recipe, read.categories, read.output, read.batch, read.size, read.precision, read.info, read.pixels,
        read.keypoints,
    )  # fmt: skip
