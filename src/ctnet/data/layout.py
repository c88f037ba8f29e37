"""Which splits a path holds, in which layout, and where their pictures lie; reads folder listings only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ctnet.config.load import read_yaml
from ctnet.errors import ConfigError, DataError

_DATA_YAMLS = ("data.yaml", "data.yml", "dataset.yaml")
_ORDER = ("train", "val", "test")
SPLIT_FOLDERS = ("train", "valid", "val", "test")
"""names of folders that hold pictures and Pascal VOC's XML of one split each, as exporters write them"""
_LOOKED_FOR = (
    "annotations/instances_*.json",
    "train/_annotations.coco.json",
    "Annotations/ with ImageSets/Main/*.txt",
    "*.xml beside pictures, there or in train/ and val/",
    *_DATA_YAMLS,
)


class SplitFiles(NamedTuple):
    """Where one split lies: `file` is a COCO json, a VOC folder or a YOLO data.yaml."""

    layout: Literal["coco", "voc", "yolo"]
    file: Path
    image_folders: tuple[Path, ...] = ()


class NoLayout(DataError):
    """A folder that is no data set, though it may hold pictures."""


def find_splits(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a folder or file by name. Raises NoLayout when none is recognised, or another DataError.

    A json file is one split, named after the file; Roboflow's `valid` is called `val`.
    """
    if path.suffix.lower() == ".json" and path.is_file():
        return _json_file(path)
    if path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        return _yaml_file(path)
    if not path.is_dir():
        raise DataError("there is no such folder or file", got=path, expected="a data set")
    splits = _coco_folder(path) or _roboflow_folder(path) or _voc_folder(path)
    data_yaml = next((path / name for name in _DATA_YAMLS if (path / name).is_file()), None)
    if not splits:
        splits = _yaml_file(data_yaml) if data_yaml else _xml_beside_pictures(path)
    if not splits:
        raise NoLayout("the folder has no layout that is known", folder=path, looked_for=", ".join(_LOOKED_FOR))
    return {name: splits[name] for name in sorted(splits, key=_rank)}


def pick_split(path: Path, splits: dict[str, SplitFiles], split: str) -> SplitFiles:
    """Return the files of a split; a json file given by itself serves as any. Raises DataError."""
    if path.suffix.lower() == ".json":
        return next(iter(splits.values()))
    if split not in splits:
        raise DataError(f"there is no split {split!r}", data=path, got=split, expected=" or ".join(splits))
    return splits[split]


def json_image_folders(file: Path) -> tuple[Path, ...]:
    """Return the folders in which the pictures of a COCO json may lie when nothing else is known of them."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    return (*_image_folders(root, file.stem.removeprefix("instances_")), file.parent)


def read_data_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML that describes data. Raises DataError."""
    try:
        return read_yaml(path, as_written="names")
    except ConfigError as error:
        raise DataError(error.message, hint=error.hint, **error.facts) from None


def _rank(split: str) -> tuple[int, str]:
    """Sort train before val before test before the rest."""
    return (_ORDER.index(split) if split in _ORDER else len(_ORDER)), split


def _coco_folder(folder: Path) -> dict[str, SplitFiles]:
    files = sorted((folder / "annotations").glob("instances_*.json"))
    names = [file.stem.removeprefix("instances_") for file in files]
    short = [re.sub(r"\d{4}$", "", name) for name in names]
    unique = len(set(short)) == len(short)
    return {
        brief if unique else name: SplitFiles("coco", file, _image_folders(folder, name))
        for brief, name, file in zip(short, names, files, strict=True)
    }


def _roboflow_folder(folder: Path) -> dict[str, SplitFiles]:
    files = sorted(folder.glob("*/_annotations.coco.json"))
    return {
        "val" if file.parent.name == "valid" else file.parent.name: SplitFiles("coco", file, (file.parent,))
        for file in files
    }


def _json_file(file: Path) -> dict[str, SplitFiles]:
    name = file.stem.removeprefix("instances_")
    return {name: SplitFiles("coco", file, json_image_folders(file))}


def _image_folders(root: Path, name: str) -> tuple[Path, ...]:
    """Return the folders in which pictures of a split may lie, the root last.

    `name` may end in a year, or go on behind the split: the pictures of val_mended are those of val.
    """
    brief = re.sub(r"\d{4}$", "", name)
    start = re.match("train|valid|val|test", name)
    guesses = [*dict.fromkeys([name, f"{brief}2017", brief, *([start.group()] if start else [])])]
    folders = [root / guess for guess in guesses] + [root / "images" / guess for guess in guesses]
    return (*(folder for folder in [*folders, root / "images"] if folder.is_dir()), root)


def _voc_folder(folder: Path) -> dict[str, SplitFiles]:
    candidates = [folder, *sorted(folder.glob("VOC20*")), *sorted(folder.glob("VOCdevkit/VOC20*"))]
    roots = [root for root in candidates if (root / "Annotations").is_dir()]
    if len(roots) > 1:
        raise DataError("several Pascal VOC folders", expected="the path of one", got=", ".join(map(str, roots)))
    if not roots:
        return {}
    (root,) = roots
    if not (root / "ImageSets").is_dir():
        return {"train": SplitFiles("voc", root)} if any((root / "Annotations").glob("*.xml")) else {}
    # Main/ also lists the pictures of each class (aeroplane_train.txt); those are no splits.
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    return {file.stem: SplitFiles("voc", root) for file in lists if "_" not in file.stem}


def _xml_beside_pictures(folder: Path) -> dict[str, SplitFiles]:
    """Return the splits of folders such as train/ and valid/, or else the folder itself as the split to train on."""
    found = {name: folder / name for name in SPLIT_FOLDERS if any((folder / name).glob("*.xml"))}
    if found:
        return {"val" if name == "valid" else name: SplitFiles("voc", path) for name, path in found.items()}
    return {"train": SplitFiles("voc", folder)} if any(folder.glob("*.xml")) else {}


def _yaml_file(file: Path) -> dict[str, SplitFiles]:
    content = read_data_yaml(file)
    if "names" in content:
        splits = {name: SplitFiles("yolo", file) for name in _ORDER if content.get(name)}
        if not splits:
            raise DataError("the data set has no split", file=file, expected="train: FOLDER, val: FOLDER")
        return splits
    splits = {}
    for name, entry in content.items():
        if not isinstance(entry, dict) or set(entry) != {"annotations", "images"}:
            raise DataError(
                f"the split {name!r} is not described",
                file=file,
                expected="{annotations: FILE.json, images: FOLDER}, or names: for a YOLO data set",
                got=entry,
            )
        folder = file.parent / str(entry["images"])
        splits[str(name)] = SplitFiles("coco", file.parent / str(entry["annotations"]), (folder,))
    return splits
