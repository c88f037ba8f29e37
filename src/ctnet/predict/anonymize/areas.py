"""Places and times in which everything, or nothing, is hidden: the files of `--regions` and `--times`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctnet.errors import ConfigError
from ctnet.files import read_file
from ctnet.limits import TEXT_BYTES
from ctnet.predict.anonymize.masks import Box

Kind = Literal["always", "only", "never"]

_KINDS: tuple[Kind, ...] = ("always", "only", "never")
_TIME = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,4}):)?(\d{1,6}(?:\.\d{1,6})?)")
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(%?)")
_REGION = "always|only|never X1 Y1 X2 Y2 [START END], in pixels or per cent, such as: always 0 0 20% 10% 1:05 end"
_SPAN = "always|only|never START END, in seconds or hours:minutes:seconds, such as: only 0:30 end"


@dataclass(frozen=True)
class Area:
    """A rectangle, or the whole image, within a span of seconds. A length is pixels or, if relative, a part of 1."""

    kind: Kind
    corners: tuple[tuple[float, bool], ...] | None = None
    start: float = 0.0
    end: float = math.inf

    def active(self, seconds: float | None) -> bool:
        """Return whether it counts at this time of a video; for an image, None, it always does."""
        return seconds is None or self.start <= seconds < self.end

    def box(self, size_hw: tuple[int, int]) -> Box:
        """Return the rectangle in pixels of an image of this size."""
        height, width = size_hw
        if self.corners is None:
            return 0, 0, width, height
        sides = (width, height, width, height)
        x1, y1, x2, y2 = (n * side if relative else n for (n, relative), side in zip(self.corners, sides, strict=True))
        return x1, y1, x2, y2


@dataclass(frozen=True)
class Areas:
    """Regions and times: `always` hides all of it, `only` and `never` limit where objects are hidden."""

    regions: tuple[Area, ...] = ()
    times: tuple[Area, ...] = ()

    def forced(self, seconds: float | None, size_hw: tuple[int, int]) -> list[Box]:
        """Return the boxes that are hidden whatever is found in them; the times count in videos alone."""
        times = () if seconds is None else self.times
        return [area.box(size_hw) for area in (*self.regions, *times) if area.kind == "always" and area.active(seconds)]

    def allow(self, box: Box, seconds: float | None, size_hw: tuple[int, int]) -> bool:
        """Return whether an object is hidden: by its centre, inside an `only` if there is one, and in no `never`."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        for areas in (self.regions, () if seconds is None else self.times):
            only = [area for area in areas if area.kind == "only"]
            if only and not any(_holds(area, x, y, seconds, size_hw) for area in only):
                return False
            if any(_holds(area, x, y, seconds, size_hw) for area in areas if area.kind == "never"):
                return False
        return True


def _holds(area: Area, x: float, y: float, seconds: float | None, size_hw: tuple[int, int]) -> bool:
    if area.corners is None:
        return area.active(seconds)
    x1, y1, x2, y2 = area.box(size_hw)
    return area.active(seconds) and x1 <= x < x2 and y1 <= y < y2


def read_areas(regions: Path | None, times: Path | None) -> Areas:
    """Return what the two files say, a line an area; `#` begins a remark. Raises ConfigError, naming file and line."""
    return Areas(_read(regions, 4, _REGION), _read(times, 0, _SPAN))


def _read(file: Path | None, corners: int, expected: str) -> tuple[Area, ...]:
    if file is None:
        return ()
    try:
        text = read_file(file, TEXT_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError("the file cannot be read", file=file, got=error.strerror) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is no text", file=file, expected=f"lines such as: {expected}") from None
    areas = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if words:
            area = _area(words, corners)
            if area is None:
                raise ConfigError("a line cannot be understood", file=file, line=number, got=line, expected=expected)
            areas.append(area)
    if not areas:
        raise ConfigError("the file names no area", file=file, expected=f"lines such as: {expected}")
    return tuple(areas)


def _area(words: Sequence[str], corners: int) -> Area | None:
    """Return the area of a line, None for a line that is none."""
    kind = next((kind for kind in _KINDS if kind == words[0].lower()), None)
    lengths, times = words[1 : 1 + corners], words[1 + corners :]
    if kind is None or len(lengths) < corners or len(times) not in ((0, 2) if corners else (2,)):
        return None
    sides = tuple(side for word in lengths if (side := _length(word)) is not None)
    start, end = (_seconds(word) for word in times) if times else (0.0, math.inf)
    if len(sides) < corners or start is None or end is None or not start < end:
        return None
    if corners and any(low[1] == high[1] and low[0] >= high[0] for low, high in zip(sides[:2], sides[2:], strict=True)):
        return None
    return Area(kind, sides or None, start, end)


def _length(word: str) -> tuple[float, bool] | None:
    found = _LENGTH.fullmatch(word)
    return (float(found[1]) / (100 if found[2] else 1), bool(found[2])) if found else None


def _seconds(word: str) -> float | None:
    if word.lower() == "end":
        return math.inf
    found = _TIME.fullmatch(word)
    return 3600.0 * int(found[1] or 0) + 60.0 * int(found[2] or 0) + float(found[3]) if found else None
