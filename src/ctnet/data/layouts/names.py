"""Files found by names that may be spelt otherwise than on the disk.

Annotation files travel: from Windows (backslashes, another case), from macOS (decomposed letters, `._` files) and
from web tools (percent-encoded names, URLs). The exact name always wins, and a name that fits two files fits none.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.files import exists, is_file

_DEEPEST = 32  # folders; all tails of a long path of a hostile file would take time that grows with its square


def spelling(name: str) -> str:
    """Return the key that names share when they differ by case or Unicode normalisation alone."""
    return unicodedata.normalize("NFC", name).casefold()


def plain_path(name: str) -> str:
    """Return the path with forward slashes, without the scheme, host and query of a URL."""
    return (unquote(urlsplit(name).path).lstrip("/") if "://" in name else name).replace("\\", "/")


class Folders:
    """Looks files up in listings, each read once. Hidden files, among them macOS' `._` ones, do not count."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._stems: dict[Path, dict[str, list[str]]] = {}

    def entry(self, folder: Path, name: str) -> Path | None:
        """Return the path `name` below the folder however it is spelt on the disk, None when there is none."""
        if exists(folder / name):
            return folder / name
        found: Path | None = folder
        for part in Path(name).parts:
            if found is None or part == "..":
                return None
            names = self._listing(found).get(spelling(part), [])
            found = found / names[0] if len(names) == 1 else None
        return found

    def with_stem(self, folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
        """Return the file `stem` (with folders, without suffix) that has the first of `suffixes`, in whatever case."""
        if "/" in stem:
            parent, _, stem = stem.rpartition("/")
            inner = self.entry(folder, parent)
            if inner is None:
                return None
            folder = inner
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for names in self._listing(folder).values():
                for name in names:
                    stems.setdefault(spelling(Path(name).stem), []).append(name)
            self._stems[folder] = stems
        named = self._stems[folder].get(spelling(stem), [])
        exact = [name for name in named if Path(name).stem == stem]
        fitting = exact or (named if len({Path(name).stem for name in named}) == 1 else [])
        by_suffix = {Path(name).suffix.lower(): name for name in fitting}
        return next((folder / by_suffix[suffix] for suffix in suffixes if suffix in by_suffix), None)

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):  # noqa: PTH208
                    if not name.startswith("."):
                        listing.setdefault(spelling(name), []).append(name)
            except (OSError, ValueError):  # ValueError: a name that no file system takes
                pass  # what cannot be listed holds nothing to find
            self._listings[folder] = listing
        return self._listings[folder]


class ImageFinder:
    """Finds the images that annotation files name, in the first folder that has them."""

    def __init__(self, image_folders: Sequence[Path]) -> None:
        self._image_folders = image_folders
        self._folders = Folders()

    def __call__(self, name: str) -> Path:
        """Return where the image is: below its name, else below the name without its first folders.

        An image that is nowhere gets the first path that was tried.
        """
        candidates = [folder / tail for tail in _tails(plain_path(name)) for folder in self._image_folders]
        found = next((path for path in candidates if is_file(path)), None)
        return found or self._otherwise_spelt(name) or candidates[0]

    def with_stem(self, stem: str) -> Path | None:
        """Return the image of a name without suffix, None when there is none."""
        found = (self._folders.with_stem(folder, stem, IMAGE_SUFFIXES) for folder in self._image_folders)
        return next((path for path in found if path), None)

    def _otherwise_spelt(self, name: str) -> Path | None:
        for text in dict.fromkeys((plain_path(name), unquote(plain_path(name)))):
            for tail in _tails(text):
                found = (self._folders.entry(folder, tail) for folder in self._image_folders)
                path = next((path for path in found if path and is_file(path)), None)
                if path:
                    return path
        return None


def _tails(path: str) -> Iterator[str]:
    """Yield the path, then what is left without its first folder, its first two, ...; `_DEEPEST` parts at most."""
    yield path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    yield from ("/".join(parts[start:]) for start in range(max(1, len(parts) - _DEEPEST), len(parts)))


def files_below(folder: Path, suffixes: Sequence[str], *, nested: bool = False) -> list[Path]:
    """Return the files with these suffixes in whatever case, sorted; hidden ones do not count."""
    inside = folder.rglob("*") if nested else folder.glob("*")
    return sorted(p for p in inside if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file())
