"""Limits on the content of files, in one table, so that no small file exhausts memory or time.

Each limit is far above what honest files hold. A reader calls `check` with the number it found before it reads on.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from ctnet.errors import ConfigError


class TooMuch(ValueError):
    """A file exceeds a limit."""


@dataclass(frozen=True)
class Limit:
    """A maximum; `what` is the unit in messages."""

    most: int
    what: str

    def check(self, found: int) -> None:
        """Raise TooMuch, with the limit in its text, when more was found."""
        if found > self.most:
            raise TooMuch(f"more than {self.most:,} {self.what}")


FILE_BYTES = Limit(8 << 30, "bytes in a file that is read whole")
TEXT_BYTES = Limit(64 << 20, "bytes in an XML, label or list file")
JSON_DEPTH = Limit(100, "levels of JSON")
YAML_BYTES = Limit(1 << 20, "bytes of YAML")
YAML_DEPTH = Limit(50, "levels of YAML")
YAML_VALUES = Limit(100_000, "values in a YAML file, aliases counted as often as they are used")

IMAGE_SIDE = Limit(1 << 20, "pixels along a side")
JPEG_WORK = Limit(6_000_000_000, "pixels in the scans of a JPEG together")
WARP_SIDE = Limit(32_766, "pixels along a side")
WARP_BYTES = Limit((1 << 31) - 1, "bytes")

ARCHIVE_FILES = Limit(5_000_000, "files in an archive")
ARCHIVE_BYTES = Limit(1 << 40, "bytes in an archive, unpacked")
ARCHIVE_RATIO = Limit(50, "times the size of the archive, unpacked")
ZIP_DIRECTORY = Limit(16 << 20, "bytes in the directory of a zip archive")
HEADER_BYTES = Limit(32 << 20, "bytes in the header of a safetensors file")
TENSORS = Limit(100_000, "tensors in a file")
TENSOR_DIMS = Limit(64, "dimensions of a tensor")
NAME_BYTES = Limit(1024, "bytes in a name")
PICKLE_STEPS = Limit(3_000_000, "instructions in a pickle")
KEY_PARTS = Limit(100, "parts in the key of a dictionary")
PLAIN_VALUES = Limit(1_000_000, "values beside the tensors")
PLAIN_DEPTH = Limit(50, "levels beside the tensors")

PIXELS_VARIABLE = "CTNET_MAX_PIXELS"
"""The environment variable that raises or lowers the number of pixels of an image that is decoded."""
_PIXELS, _MOST_PIXELS = 100_000_000, 1 << 30  # OpenCV decodes no more than the second


def image_pixels() -> Limit:
    """Return the limit of pixels in an image: CTNET_MAX_PIXELS, else a hundred million. Raises ConfigError."""
    text = os.environ.get(PIXELS_VARIABLE, "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= _MOST_PIXELS):
        raise ConfigError(
            f"{PIXELS_VARIABLE} cannot be used", expected=f"a number of pixels from 1 to {_MOST_PIXELS}", got=text
        )
    return Limit(int(text or _PIXELS), "pixels")


def parse_json(content: str | bytes) -> Any:
    """Return the value of JSON text. Raises ValueError for what is no JSON or nested too deeply."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    # Python's parser has a limit of its own, but what it just accepts can be neither shown nor written again.
    brackets = raw.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_BRACKETS)
    brackets = re.sub(rb'"[^"]*"', b"", brackets)
    depth, before = 0, -1
    while len(brackets) != before:  # each turn takes away the innermost level
        before, brackets = len(brackets), brackets.replace(b"[]", b"").replace(b"{}", b"")
        JSON_DEPTH.check(depth)
        depth += 1
    try:
        return json.loads(content)
    except RecursionError:
        raise TooMuch(f"more than {JSON_DEPTH.most} {JSON_DEPTH.what}") from None


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
