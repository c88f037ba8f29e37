"""What is worth knowing about image files that are used: one sentence for all files of a kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ctnet.data.image import Decoded, decode, read_image_file
from ctnet.data.value_range import ValueRange
from ctnet.errors import DataError

_LOOKED_AT = 16  # images that are decoded to know what they are like
_EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib")  # of one frame; nothing to look for


class Remarks:
    """Collects what was noticed while images were decoded; images of one frame and eight bits cause none."""

    def __init__(self) -> None:
        self._frames: list[str] = []
        self._scaled: list[str] = []
        self._ranges: set[ValueRange] = set()

    def add(self, path: Path, decoded: Decoded) -> None:
        """Take note of an image."""
        if decoded.frames > 1:
            self._frames.append(path.name)
        if decoded.scaled:
            self._scaled.append(path.name)
            self._ranges.add(decoded.scaled)

    def sentences(self) -> list[str]:
        """Return a sentence for each kind of remark."""
        sentences = []
        if self._frames:
            what = f"{_images(self._frames)} with several frames or pages"
            sentences.append(f"{what}: the first of them is used")
        if self._scaled:
            ranges = " or ".join(f"{low:g}..{high:g}" for low, high in sorted(self._ranges)[:4])
            more = ", ..." if len(self._ranges) > 4 else ""
            what = f"{_images(self._scaled)} of more than eight bits"
            sentences.append(f"{what}: values {ranges}{more} become 0..255 (data.value_range)")
        return sentences


def _images(names: list[str]) -> str:
    return f"1 image ({names[0]})" if len(names) == 1 else f"{len(names)} images (first: {names[0]})"


def remarks_on(paths: Iterable[Path], value_range: ValueRange | None = None) -> list[str]:
    """Return sentences about some of the images, evenly spread over those that are not JPEG or BMP by their names.

    What cannot be read is left to others.
    """
    paths = [path for path in paths if path.suffix.lower() not in _EIGHT_BITS]
    remarks = Remarks()
    for path in paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT]:
        try:
            remarks.add(path, decode(read_image_file(path), path, value_range=value_range))
        except (OSError, ValueError, DataError):
            continue
    return remarks.sentences()
