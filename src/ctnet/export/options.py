"""Options of an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctnet.errors import ConfigError
from ctnet.export.about import Precision

Dialect = Literal["npu", "ai.onnx"]


@dataclass(frozen=True)
class OmOptions:
    """Options of ATC: one OM for each of `batches`, for the chip `soc_version` (None: not known).

    `precision` is that of the chip's computation; with `aipp` the OM takes pixels and normalises them.
    """

    batches: tuple[int, ...] = (1,)
    soc_version: str | None = None
    dialect: Dialect = "npu"
    precision: Literal["fp32", "fp16"] = "fp16"
    aipp: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """Options of a file. `size` and `batch` are None where it takes any; an empty size follows the recipe.

    `calibration` are the images that show what range each number of an int8 file has.
    """

    output: Literal["decoded", "raw"] = "decoded"
    size: tuple[int, int] | Literal["recipe"] | None = "recipe"
    batch: int | None = None
    precision: Precision = "fp32"
    dcn: Literal["native", "decompose"] = "native"
    om: OmOptions = OmOptions()
    calibration: tuple[Path, ...] = ()


def parse_batch(text: str) -> int | None:
    """Return the batch size that is meant, None for `dynamic`. Raises ConfigError."""
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("a batch size is a number above 0, or dynamic", got=text)
    return int(text)


def parse_batches(text: str) -> tuple[int, ...]:
    """Return the batch sizes of a list such as `1,4,8`, rising. Raises ConfigError."""
    sizes = {parse_batch(part) for part in text.split(",")}
    if None in sizes:
        raise ConfigError("an OM takes batches of one size", got=text, hint="--batch-size 1,4,8 makes one of each")
    return tuple(sorted(size for size in sizes if size is not None))
