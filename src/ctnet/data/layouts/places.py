"""Where in a folder annotations of other tools lie, and which split their names state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ctnet.data.layouts.layout import SPLIT_NAMES

_MOST_FOLDERS = 1000


def folders_below(root: Path, depth: int = 2) -> list[Path]:
    """Return the folder and those in it down to a depth, hidden ones left out; at most a thousand."""
    found = [root]
    if depth:
        for name in _names(root, folders=True):
            found += folders_below(root / name, depth - 1)
            if len(found) > _MOST_FOLDERS:
                break
    return found[:_MOST_FOLDERS]


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a folder with these suffixes in whatever case, sorted; hidden ones do not count."""
    return [folder / name for name in _names(folder, folders=False) if name.lower().endswith(tuple(suffixes))]


def _names(folder: Path, *, folders: bool) -> list[str]:
    try:
        with os.scandir(folder) as inside:
            return sorted(e.name for e in inside if not e.name.startswith(".") and e.is_dir() == folders)
    except OSError:
        return []  # what cannot be listed holds nothing to find


def stated_split(place: Path, root: Path) -> str:
    """Return the word for a split in the name of a file or folder, or in those of its parents below `root`, else ""."""
    for name in reversed(place.relative_to(root).parts):
        words: list[str] = re.findall("[a-z]+", name.lower())
        if found := next((word for word in words if word in SPLIT_NAMES), None):
            return found
    return ""
