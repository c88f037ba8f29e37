"""What a path is that is no data set, so that the error can name it: a pure matter of words, nothing is read by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctnet.data.image import suffixes_of
from ctnet.files import POINTER, read_file, require_file
from ctnet.limits import TEXT_BYTES, parse_json

CONVERT = "ctnet data convert makes COCO, YOLO or Pascal VOC of it"
_FETCH = "run `git lfs pull`"
_HEAD = 4096
_MOST = 8  # files of a folder that are looked at
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".pt2", ".pte")


def recognise(path: Path) -> tuple[str, str] | None:
    """Return what a file, or the annotations in a folder, are, and what to do; None for what is not known."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*.*") if p.suffix.lower() in (".json", ".csv") and p.is_file())[:_MOST]
        found = ((file, recognise(file)) for file in inside)
        return next(((f"{what} ({file.name})", hint) for file, (what, hint) in ((f, r) for f, r in found if r)), None)
    try:
        require_file(path)
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head.startswith(POINTER):
        return "a git-lfs pointer, not the file itself", _FETCH
    if path.suffix.lower() in _WEIGHTS:
        return "a file of weights", "give it to --weights, and the data set to --data"
    if re.match(rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|Rar!|7z\xbc\xaf|.{257}ustar", head, re.DOTALL):
        return "an archive", "unpack it and name the folder"
    if suffixes_of(head):
        return "an image", "name the folder that holds images and annotations"
    if path.suffix.lower() in (".csv", ".tsv"):
        return "a table without columns of images and boxes (CSV)", "name them filename, class, xmin, ymin, xmax, ymax"
    if path.suffix.lower() == ".json":
        try:
            return recognise_json(parse_json(read_file(path, TEXT_BYTES)))
        except (OSError, ValueError):
            return None
    return None


def recognise_json(content: Any) -> tuple[str, str] | None:
    """Return the tool that writes such JSON, and what to do; None for what is not known."""
    one = content
    if isinstance(content, list) and content:
        one = content[0]
    elif isinstance(content, dict) and len(content) and all(isinstance(v, dict) for v in content.values()):
        one = next(iter(content.values()))
    for has, tool in _TOOLS:
        for place in (content, one):
            if isinstance(place, Mapping) and has <= set(place):
                return tool
    return None


_TOOLS: tuple[tuple[set[str], tuple[str, str]], ...] = (
    ({"images", "annotations", "categories"}, ("COCO, under a name that is not looked for", "name the file itself")),
    ({"shapes", "imagePath"}, ("annotations of LabelMe", CONVERT)),
    ({"_via_img_metadata"}, ("annotations of VIA", CONVERT)),
    ({"filename", "regions"}, ("annotations of VIA", CONVERT)),
    ({"image", "annotations"}, ("annotations of CreateML", CONVERT)),
    ({"data", "annotations"}, ("annotations of Label Studio", CONVERT)),
    ({"objects", "size"}, ("annotations of Supervisely", CONVERT)),
    ({"items", "categories"}, ("annotations of Datumaro", CONVERT)),
    ({"image_id", "bbox", "score"}, ("detections in COCO's form, not annotations", "name the annotations")),
)
"""keys that are found together, at the top or in the first entry; the tool, and what to do"""


def is_of_datumaro(file: Path) -> bool:
    """Return whether the categories of a file that may be COCO are an object, as Datumaro's, which begin the file."""
    try:
        with file.open("rb") as stream:
            return re.search(rb'"categories"\s*:\s*\{', stream.read(1 << 16)) is not None
    except OSError:
        return False
