"""The data layouts that ctnet knows, as data. A new one is a file beside this one and an entry here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctnet.data.layouts import coco, csv_table, darknet, voc, wider, yolo
from ctnet.data.layouts.archive import is_archive, unpacked
from ctnet.data.layouts.createml import CREATEML
from ctnet.data.layouts.data_yaml import DATA_YAMLS
from ctnet.data.layouts.datumaro import DATUMARO
from ctnet.data.layouts.fiftyone import FIFTYONE
from ctnet.data.layouts.json_set import Tool, find_json
from ctnet.data.layouts.label_studio import LABEL_STUDIO
from ctnet.data.layouts.labelme import LABELME
from ctnet.data.layouts.layout import Layout, Split, SplitFiles
from ctnet.data.layouts.places import folders_below
from ctnet.data.layouts.recognise import recognise
from ctnet.data.layouts.supervisely import SUPERVISELY
from ctnet.data.layouts.via import VIA
from ctnet.errors import DataError, nearest

SPLITS = ("train", "val", "test")
"""the usual names, in the order in which splits are listed"""

_OF_TOOLS = [LABELME, SUPERVISELY, VIA, CREATEML, DATUMARO, FIFTYONE, LABEL_STUDIO]


def _find_coco(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a COCO set under usual names; a file that is another tool's is not one."""
    if path.is_file() and any(layout.find(path) for layout in _OF_TOOLS):
        return {}
    return coco.find(path)


def _find_coco_by_content(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a folder with COCO files of any names (Label Studio, FiftyOne, Roboflow)."""
    return {} if path.is_file() else find_json(Tool(_is_coco, lambda *_: iter(())), path)


def _is_coco(content: Any) -> bool:
    return {*coco.COCO_LISTS} <= content.keys() or (content != {} and all(value == [] for value in content.values()))


_COCO = Layout(
    "coco", "COCO",
    ("annotations/instances_*.json or train.json", "*/_annotations.coco.json", f"splits in {DATA_YAMLS[0]}"),
    _find_coco, lambda files, split, _: coco.read_coco(files.file, files.image_folders, split),
    content=lambda files, tolerate: coco.load_coco_json(files.file, tolerate), writer=coco.WRITER,
)  # fmt: skip

LAYOUTS = [
    _COCO,
    Layout(
        "yolo", "YOLO", (f"names in {' or '.join(DATA_YAMLS)}",),
        yolo.find, lambda files, split, tolerate: yolo.read_yolo(files.file, split, tolerate, files.key),
        writer=yolo.WRITER,
    ),
    Layout(
        "wider", "WIDER FACE",
        ("wider_face_split/wider_face_*_bbx_gt.txt with WIDER_*/images", "train/label.txt, val/label.txt (RetinaFace)"),
        wider.find, wider.read_wider,
    ),
    Layout(
        "voc", "Pascal VOC",
        ("Annotations/*.xml with ImageSets/Main/*.txt", "*.xml beside the images, there or in train/ and val/"),
        voc.find, lambda files, split, tolerate: voc.read_voc(files.file, split, tolerate, files.key),
        writer=voc.WRITER,
    ),
    replace(_COCO, sought=("any *.json with images, annotations and categories",), find=_find_coco_by_content),
    *_OF_TOOLS,
    Layout(
        "darknet", "YOLO without a YAML", ("*.data", "classes.txt", "*.names", "*/_darknet.labels"),
        darknet.find, darknet.read,
    ),
    Layout("csv", "a table of boxes", ("*.csv with columns of image, class and box",), csv_table.find, csv_table.read),
]  # fmt: skip
"""in the order in which they are tried: layouts with a file of their own before those recognised by folder names"""


class NoLayout(DataError):
    """A path that is in no layout of the table, though it may hold images."""


def find_splits(path: Path) -> dict[str, Split]:
    """Return the splits of a folder, file or archive by name: train, val and test first.

    Raises NoLayout when no layout fits, or another DataError, among them the one of the first layout that recognised
    the set and cannot use it when no other can.
    """
    if not path.exists():
        raise DataError("there is no such folder or file", got=path, expected="a data set")
    refused: DataError | None = None
    for place in _places(path):
        for layout in LAYOUTS:
            try:
                found = layout.find(place)
            except DataError as error:
                refused = refused or error
                continue
            if found:
                return {name: Split(name, layout, found[name]) for name in sorted(found, key=_rank)}
    if refused:
        raise refused
    what, hint = recognise(path) or (None, None)
    sought: dict[str, str] = {}
    for layout in LAYOUTS:
        words = (*sought.get(f"{layout.title} needs", "").split(", "), *layout.sought)
        sought[f"{layout.title} needs"] = ", ".join(filter(None, words))
    raise NoLayout(
        f"the {'folder' if path.is_dir() else 'file'} is in no known data layout",
        path=path,
        got=what,
        hint=hint,
        **sought,
    )


def _places(path: Path) -> Iterator[Path]:
    """Yield the path, or what is in it if it is an archive, and then the folder that is alone in it."""
    place = unpacked(path) if path.is_file() and is_archive(path) else path
    yield place
    inside = folders_below(place, 1)[1:] if place.is_dir() else []
    if len(inside) == 1:
        yield inside[0]


def pick_split(path: Path, splits: dict[str, Split], name: str) -> Split:
    """Return the split of that name, ctnet's or its own; a file that states none serves as any. Raises DataError."""
    fitting = (split for split in splits.values() if split.files.serves_any or split.files.key == name)
    split = splits.get(name) or next(fitting, None)
    if split is None:
        raise DataError(
            f"there is no split {name!r}",
            data=path,
            got=name,
            expected=" or ".join(splits),
            nearest=nearest(name, splits),
        )
    return split._replace(name=name)


def layout_named(name: str) -> Layout | None:
    """Return the layout of that name, None when there is none."""
    return next((layout for layout in LAYOUTS if layout.name == name), None)


def _rank(split: str) -> tuple[int, str]:
    """Sort train before val before test before the rest."""
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS)), split
