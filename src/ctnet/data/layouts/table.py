"""The data layouts that ctnet knows, as data. A new one is a file beside this one and an entry here."""

from __future__ import annotations

from pathlib import Path

from ctnet.data.layouts import coco, voc, yolo
from ctnet.data.layouts.data_yaml import DATA_YAMLS
from ctnet.data.layouts.layout import Layout, Split
from ctnet.data.layouts.recognise import recognise
from ctnet.errors import DataError, nearest

_ORDER = ("train", "val", "test")

LAYOUTS = [
    Layout(
        "coco", "COCO",
        ("annotations/instances_*.json or train.json", "*/_annotations.coco.json", f"splits in {DATA_YAMLS[0]}"),
        coco.find, lambda files, split, _: coco.read_coco(files.file, files.image_folders, split),
        content=lambda files: coco.load_coco_json(files.file), writer=coco.WRITER,
    ),
    Layout(
        "yolo", "YOLO", (f"names in {' or '.join(DATA_YAMLS)}",),
        yolo.find, lambda files, split, tolerate: yolo.read_yolo(files.file, split, tolerate, files.key),
        writer=yolo.WRITER,
    ),
    Layout(
        "voc", "Pascal VOC",
        ("Annotations/*.xml with ImageSets/Main/*.txt", "*.xml beside the images, there or in train/ and val/"),
        voc.find, lambda files, split, tolerate: voc.read_voc(files.file, split, tolerate, files.key),
        writer=voc.WRITER,
    ),
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
    for layout in LAYOUTS:
        try:
            found = layout.find(path)
        except DataError as error:
            refused = refused or error
            continue
        if found:
            return {name: Split(name, layout, found[name]) for name in sorted(found, key=_rank)}
    if refused:
        raise refused
    what, hint = recognise(path) or (None, None)
    sought = {f"{layout.title} needs": ", ".join(layout.sought) for layout in LAYOUTS}
    raise NoLayout(
        f"the {'folder' if path.is_dir() else 'file'} is in no known data layout",
        path=path,
        got=what,
        hint=hint,
        **sought,
    )


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
    return (_ORDER.index(split) if split in _ORDER else len(_ORDER)), split
