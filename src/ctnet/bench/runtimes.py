"""Runtimes by the names of `--runtimes`, and the parsing of lists on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from ctnet.devices import OpenDevice, PrecisionName
from ctnet.errors import ConfigError, nearest
from ctnet.export.formats import ExportFormat, format_named

RUNTIMES: Mapping[str, str | None] = {
    "torch": None,
    "compiled": None,
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "pt2": "pt2",
    "executorch": "executorch",
}
"""export format of each runtime, None for torch and torch.compile"""

DEFAULT_RUNTIMES = ("torch", "compiled", "onnxruntime", "openvino")


def format_for(runtime: str) -> ExportFormat | None:
    """Return the format that the runtime reads, None for torch and torch.compile."""
    name = RUNTIMES[runtime]
    return None if name is None else format_named(name)


def runtime_of(format: ExportFormat) -> str:
    """Return the runtime that reads files of the format."""
    return next((runtime for runtime, name in RUNTIMES.items() if name == format.name), format.name)


def parse_runtimes(text: str) -> tuple[str, ...]:
    """Return the runtimes of a list such as `torch,openvino`, each once. Raises ConfigError."""
    names = _words(text, "--runtimes")
    for name in names:
        if name not in RUNTIMES:
            known = ", ".join(RUNTIMES)
            raise ConfigError(f"unknown runtime {name!r}", known=known, nearest=nearest(name, RUNTIMES))
    return names


def parse_counts(text: str, flag: str, least: int = 1) -> tuple[int, ...]:
    """Return the numbers of a list such as `1,4,8`, each once, rising. Raises ConfigError naming the flag."""
    words = _words(text, flag)
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise ConfigError(f"{flag} is a list of numbers of {least} and more", got=text, expected="such as 1,4,8")
    return tuple(sorted(map(int, words)))


def _words(text: str, flag: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ConfigError(f"{flag} is a list separated by commas", got=repr(text))
    return tuple(dict.fromkeys(words))


def precision_for(runtime: str, asked: PrecisionName, device: OpenDevice) -> PrecisionName:
    """Return the precision of a runtime; auto is what the device runs fast, if the runtime supports it."""
    format = format_for(runtime)
    if asked != "auto" or format is None:
        return asked
    dtype = device.plugin.fast_dtype()[0]
    fast: PrecisionName = "bf16" if str(dtype) == "torch.bfloat16" else "fp32"
    return fast if fast in format.precisions else "fp32"
