"""Names of the files that are written, after the names of their sources."""

from __future__ import annotations

import os
from pathlib import Path

from ctnet.files import LONGEST_NAME

KEPT_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def kept_suffix(path: Path) -> str:
    """Return the suffix under which an image is written again: its own, or .png for formats that are only read."""
    return path.suffix if path.suffix.lower() in KEPT_SUFFIXES else ".png"


class Names:
    """Gives each file of a folder a name of its own: two sources of one name become `cell.jpg` and `cell-2.jpg`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, stem: str, suffix: str) -> str:
        """Return the name, numbered when taken; case is ignored, as some file systems do."""
        stem = os.fsdecode(os.fsencode(stem)[:LONGEST_NAME])
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._taken.add(name.casefold())
        return name
