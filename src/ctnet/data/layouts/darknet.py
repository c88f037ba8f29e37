"""YOLO without a YAML: darknet's `obj.data` (CVAT), or `classes.txt` (Label Studio, labelImg) beside the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.layouts.layout import SPLIT_NAMES, SplitFiles, Tolerate, by_split
from ctnet.data.layouts.names import Folders, ImageFinder
from ctnet.data.layouts.places import files_in
from ctnet.data.layouts.text import read_text
from ctnet.data.layouts.yolo import read_yolo
from ctnet.errors import DataError
from ctnet.files import is_file
from ctnet.types import AnnotationSet

_DATA, _NAMES, _ROBOFLOW = (".data",), ("classes.txt", ".names"), "_darknet.labels"
_ANY = ""  # the split of images that are in none


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits that a file of names, or one that lists images and names, describes."""
    if path.is_file():
        sound = path.name.lower().endswith((*_DATA, *_NAMES, _ROBOFLOW))
        return _splits(path) if sound else {}
    in_splits = [(name, path / name / _ROBOFLOW) for name in SPLIT_NAMES if is_file(path / name / _ROBOFLOW)]
    if in_splits:
        return by_split((name, SplitFiles(file)) for name, file in in_splits)
    described = [*files_in(path, _DATA), *files_in(path, _NAMES), *files_in(path, (_ROBOFLOW,))]
    return next((splits for file in described if (splits := _splits(file))), {})


def read(files: SplitFiles, split: str, tolerate: Tolerate | None) -> AnnotationSet:
    """Return one split; see `read_yolo`."""
    content, key = _describe(files.file, tolerate), files.key or split
    content.setdefault(key, content.get(_ANY))
    return read_yolo(files.file, split, tolerate, key, content)


def _splits(file: Path) -> dict[str, SplitFiles]:
    try:
        content = _describe(file, None)
    except DataError:
        return {}
    names = [name for name in content if name != "names"]
    return by_split((name or "train", SplitFiles(file)) for name in names) if content["names"] else {}


def _describe(file: Path, tolerate: Tolerate | None) -> dict[str, Any]:
    """Return what a data.yaml would hold: names, and the images of each split."""
    text = read_text(file, "the description of the data", tolerate)
    if not file.name.lower().endswith(_DATA):
        return {"names": _lines(text), **_image_folders(file.parent)}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    stated = {key.strip(): value.strip() for key, _, value in pairs}
    find_file = ImageFinder((file.parent,))  # paths begin with a folder that exporters do not write
    lists = {key: find_file(value) for key, value in stated.items() if key in SPLIT_NAMES and value}
    names = find_file(stated.get("names") or "obj.names")
    there = {key: str(path) for key, path in lists.items() if is_file(path)}
    return {"names": _lines(read_text(names, "the names of classes", tolerate)), **there}


def _lines(text: str) -> list[str]:
    """Return the lines without those at the end that are empty."""
    return [line.strip() for line in text.rstrip().splitlines()]


def _image_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split, or the one of all images, which is no split."""
    folders = Folders()
    images = folders.entry(root, "images") or root
    found: dict[str, str] = {}
    for name in SPLIT_NAMES:
        tried = (folders.entry(images, name), folders.entry(root, f"{name}/images"))
        place = next((path for path in tried if path and path.is_dir()), None)
        if place and place not in map(Path, found.values()):
            found[name] = str(place)
    if found:
        return found
    return {_ANY: str(images)} if images.is_dir() and files_in(images, IMAGE_SUFFIXES) else {}
