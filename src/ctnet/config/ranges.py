"""Types and ranges of settings.

Upper limits lie far beyond what anyone trains with: recipes also come out of files that strangers wrote, and must not
ask for more memory or time than a machine has.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ctnet.files import path_component
from ctnet.precision import ALIASES, PrecisionName


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("text without NUL characters is expected")
    return value


def pair(value: object) -> object:
    """Return a number twice, for settings with two sides, anything else as it is."""
    return (value, value) if isinstance(value, int) else value


def _unalias(value: object) -> object:
    return ALIASES.get(value, value) if isinstance(value, str) else value


LARGEST_SIDE = 8192
"""pixels of the side that a network sees, test scales included"""
LARGEST_AREA = 2**23
"""pixels of its input, a square of 2880"""
MOST_CATEGORIES = 2**15
MOST_KEYPOINTS = 1024
LONGEST_TEXT = 4096

Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=2**16)]
Detected = Annotated[int, Field(ge=1, le=10_000)]
Channels = Annotated[int, Field(ge=1, le=1024)]
Level = Annotated[float, Field(ge=-1000, le=1000)]
Value = Annotated[float, Field(ge=-1e9, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_without_nul)]
Name = Annotated[str, AfterValidator(path_component)]
Precision = Annotated[PrecisionName, BeforeValidator(_unalias)]
Side = Annotated[int, Field(ge=32, le=LARGEST_SIDE, multiple_of=32)]
TestSide = Annotated[int, Field(ge=32, le=LARGEST_SIDE)]
ImageSize = Annotated[tuple[Side, Side], BeforeValidator(pair)]


class Section(BaseModel):
    """A part of a recipe. All settings are frozen, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
