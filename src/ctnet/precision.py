"""The names of precisions, in recipes and on the command line: one list for training, inference and benchmarks."""

from __future__ import annotations

from typing import Literal, cast, get_args

from ctnet.errors import ConfigError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
ALIASES = {"off": "fp32"}
"""other accepted spellings"""


def parse_precision(text: str) -> PrecisionName:
    """Return the precision of a name; `off` is float32. Raises ConfigError for an unknown one."""
    name = ALIASES.get(text, text)
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision {text!r}", known=", ".join((*PRECISIONS, *ALIASES)))
    return cast(PrecisionName, name)
