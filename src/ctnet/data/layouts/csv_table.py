"""Tables of boxes, a row each: TensorFlow, Open Images, RetinaNet, VIA and whoever has such columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ctnet.data.layouts.labelled import (
    Corners,
    Labelled,
    Named,
    annotation_set,
    bounds,
    from_xywh,
    image_folders,
    size_of,
    understanding,
)
from ctnet.data.layouts.layout import SplitFiles, Tolerate, by_split
from ctnet.data.layouts.places import files_in, folders_below, stated_split
from ctnet.data.layouts.text import read_text
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.data.layouts.via import region_objects
from ctnet.errors import DataError
from ctnet.limits import FILE_BYTES
from ctnet.types import AnnotationSet

_CSV = (".csv", ".tsv")
_COLUMNS = {
    "name": ("filename", "imageid", "image", "imagename", "imagepath", "filepath", "file", "path", "img", "imgname"),
    "class": ("class", "labelname", "label", "classname", "category", "categoryname", "object", "name"),
    "x1": ("xmin", "x1", "left", "minx", "bboxx1"), "y1": ("ymin", "y1", "top", "miny", "bboxy1"),
    "x2": ("xmax", "x2", "right", "maxx", "bboxx2"), "y2": ("ymax", "y2", "bottom", "maxy", "bboxy2"),
    "x": ("x", "bboxx"), "y": ("y", "bboxy"), "w": ("w", "bboxwidth", "bboxw"), "h": ("h", "bboxheight", "bboxh"),
    "width": ("width", "imagewidth", "imgwidth"), "height": ("height", "imageheight", "imgheight"),
    "bbox": ("bbox", "box"), "crowd": ("isgroupof", "iscrowd"),
    "shape": ("regionshapeattributes",), "attributes": ("regionattributes",),
}  # fmt: skip
"""a column's names, without case, blanks and signs"""
_RETINANET = ("name", "x1", "y1", "x2", "y2", "class")  # the columns of a table without a header
_CORNERS, _XYWH = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")
_HEAD = 1 << 14
_DESCRIPTIONS = re.compile(r"class.*descriptions.*\.csv|classes\.csv", re.IGNORECASE)
Row = dict[str, str]


class _Table(NamedTuple):
    """The column of each meaning, what separates columns, and whether the first row is a header."""

    columns: dict[str, int]
    delimiter: str
    header: bool


def find(path: Path) -> dict[str, SplitFiles]:
    """Return a split a table: of a file, or of the files in a folder and its folders."""
    if path.is_file():
        fits = path.suffix.lower() in _CSV and _table(path)
        return {"train": SplitFiles(path, image_folders(path), serves_any=True)} if fits else {}
    files = [file for folder in folders_below(path) for file in files_in(folder, _CSV) if _table(file)]
    words = {file: stated_split(file, path) for file in files}
    return by_split((words[f] or f.stem, SplitFiles(f, image_folders(f, words[f]))) for f in files)


def read(files: SplitFiles, split: str, tolerate: Tolerate | None) -> AnnotationSet:
    """Return the boxes of a table; images without one are those with a row without numbers.

    Raises DataError for rows that cannot be understood, with `tolerate` these are left out.
    """
    tolerant, file, table = Tolerant(tolerate), files.file, _table(files.file)
    if table is None:
        raise DataError("the table has no columns of boxes", file=file, expected="; ".join(map(str, _COLUMNS)))
    text = read_text(file, "the table", tolerate, FILE_BYTES)
    rows = csv.reader(text.splitlines(), delimiter=table.delimiter)
    numbered = islice(enumerate(rows, start=1), int(table.header), None)
    objects: dict[str, list[Named]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for number, cells in numbered:
        if not any(cells):
            continue
        row = {meaning: cells[at].strip() for meaning, at in table.columns.items() if at < len(cells)}
        found = tolerant(partial(_read_row, file, number, row))
        if found is not None:
            name, named = found
            objects.setdefault(name, []).extend(named)
            corners = "x1" in table.columns or "bbox" in table.columns
            sizes.setdefault(name, size_of(row.get("height"), row.get("width")) if corners else None)
    fractions = bool(objects) and all(max(n.box) <= 1 for named in objects.values() for n in named)
    described = _descriptions(file, tolerate)
    labelled = [
        Labelled(
            name, sizes[name],
            [n._replace(class_name=described.get(n.class_name, n.class_name), fractions=fractions) for n in named],
            Path(name).stem if Path(name).suffix else name,
        )
        for name, named in objects.items()
    ]  # fmt: skip
    return annotation_set(file, split, labelled, files.image_folders)


def _table(file: Path) -> _Table | None:
    """Return how to read the table, None for one that holds no boxes."""
    try:
        with file.open("rb") as stream:
            lines = stream.read(_HEAD).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return None
    if not lines:
        return None
    delimiter = max(",;\t", key=lines[0].count)
    try:
        first = next(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return None
    columns = _columns(first)
    box = any({*names} <= columns.keys() for names in (_CORNERS, _XYWH, ("bbox",), ("shape",)))
    if "name" in columns and box:
        return _Table(columns, delimiter, header=True)
    if len(first) == len(_RETINANET) and first[0] and (not any(first[1:]) or all(map(_is_number, first[1:5]))):
        return _Table({name: at for at, name in enumerate(_RETINANET)}, delimiter, header=False)
    return None


def _columns(header: Sequence[str]) -> dict[str, int]:
    plain = [re.sub("[^a-z0-9]", "", name.lower()) for name in header]
    found: dict[str, int] = {}
    for meaning, names in _COLUMNS.items():
        at = next((plain.index(name) for name in names if name in plain), None)
        if at is not None and at not in found.values():
            found[meaning] = at
    if {"x", "y", "width", "height"} <= found.keys() and not {"w", "h"} & found.keys():
        found["w"], found["h"] = found.pop("width"), found.pop("height")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_row(file: Path, number: int, row: Row) -> tuple[str, list[Named]]:
    with understanding(file, f"line {number}", "the name of an image, a class and four finite numbers", row):
        name = row["name"]
        if not name or "\0" in name:
            raise ValueError
        if "shape" in row:
            shape = json.loads(row["shape"] or "{}")
            region = {"shape_attributes": shape, "region_attributes": json.loads(row.get("attributes") or "{}")}
            return name, region_objects(region) if shape else []
        box = _box(row)
        if box is None:
            return name, []
        class_name = row.get("class", "object")
        if not class_name:
            raise ValueError
        return name, [Named(class_name, box, crowd=row.get("crowd") in ("1", "True", "true"))]


def _box(row: Row) -> Corners | None:
    """Return the corners, None for a row of an image without objects."""
    if row.get("bbox"):
        return from_xywh(*json.loads(row["bbox"].replace("(", "[").replace(")", "]")))
    for names, read in ((_CORNERS, _from_corners), (_XYWH, from_xywh)):
        values = [row.get(name, "") for name in names]
        if any(values):
            return read(*map(float, values))
    return None


def _from_corners(x1: float, y1: float, x2: float, y2: float) -> Corners:
    bounds([(x1, y1), (x2, y2)])  # finite
    return x1, y1, x2, y2


def _descriptions(file: Path, tolerate: Tolerate | None) -> dict[str, str]:
    """Return the names of classes that stand in a table of their own, as those of Open Images."""
    folders = (file.parent, file.parent.parent, file.parent.parent / "metadata")
    tables = (path for folder in folders for path in files_in(folder, _CSV) if _DESCRIPTIONS.fullmatch(path.name))
    described: dict[str, Any] = {}
    for table in tables:
        for cells in csv.reader(read_text(table, "the names of classes", tolerate).splitlines()):
            if len(cells) == 2 and cells[1].strip():
                described.setdefault(cells[0].strip(), cells[1].strip())
    return described
