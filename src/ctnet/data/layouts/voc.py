"""Pascal VOC: one XML an image, images in JPEGImages, splits in ImageSets/Main; or XML beside the images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np

from ctnet.data.box_form import rotated_bounds
from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.data.layouts.layout import Repairable, SplitFiles, Tolerate, Writer, by_split
from ctnet.data.layouts.names import Folders, ImageFinder, files_below, plain_path
from ctnet.data.layouts.records import Records
from ctnet.data.layouts.text import decode, read_bytes, read_text
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import is_file, write_file
from ctnet.types import AnnotationSet, Category, ImageRecord

_SPLIT_FOLDERS = ("train", "valid", "val", "test")
"""names of folders that hold images and XML of one split each, as exporters write them"""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_IMAGE_FOLDERS = ("JPEGImages", "images")
_XML = (".xml",)

Row = tuple[str, tuple[float, ...]]


class _Files(NamedTuple):
    """What a split consists of."""

    names: list[str]  # of its images, without suffix
    listed_in: Path
    annotations: Path  # folders
    images: Path
    everywhere: list[Path]  # XML files of all splits


def find(path: Path) -> dict[str, SplitFiles]:
    """Return the splits of a folder with Annotations, alone or in VOCdevkit, or with XML beside the images."""
    candidates = [path, *sorted(path.glob("VOC20*")), *sorted(path.glob("VOCdevkit/VOC20*"))] if path.is_dir() else []
    roots = [root for root in candidates if _annotations_folder(root)]
    if len(roots) > 1:
        raise DataError("several Pascal VOC folders", expected="the path of one", got=", ".join(map(str, roots)))
    if not roots:
        return _beside_images(path) if path.is_dir() else {}
    (root,) = roots
    lists = _lists_folder(root)
    if lists is None:
        annotations = _annotations_folder(root)
        return {"train": SplitFiles(root)} if annotations and files_below(annotations, _XML, nested=True) else {}
    return by_split((file.stem, SplitFiles(root)) for file in files_below(lists, (".txt",)) if not _is_of_class(file))


def _is_of_class(file: Path) -> bool:
    """Return whether a list is no split, but says which images have one class (aeroplane_train.txt), by 1, 0 and -1."""
    if "_" not in file.stem:
        return False
    with suppress(OSError), file.open("rb") as lines:
        return lines.readline(4096).split()[1:] in ([b"1"], [b"0"], [b"-1"])
    return False


def read_voc(folder: Path, split: str, tolerate: Tolerate | None = None, key: str = "") -> AnnotationSet:
    """Return the images that `ImageSets/Main/{split}.txt` lists, boxes exactly as written.

    A folder without lists is one split, and one without `Annotations` has its XML beside the images. Categories are
    the names of all annotation files in alphabetical order, so that every split has the same; ids count from 1, as do
    those of images and boxes. Objects marked difficult are kept.

    Raises DataError, naming the file, for what cannot be understood. With `tolerate` such files and their images are
    left out and it gets each error. `key` is the name of the split's list where that differs.
    """
    tolerant = Tolerant(tolerate)
    files = _files(folder, key or split, tolerant)
    read = {file: tolerant(partial(_read, file, tolerant)) for file in files.everywhere}
    class_names = sorted({name for annotated in read.values() if annotated for name, _ in annotated.objects})
    label_of = {name: label for label, name in enumerate(class_names)}
    records, folders, find_image = Records(), Folders(), ImageFinder((files.images,))
    for image_id, name in enumerate(files.names, start=1):
        file = folders.with_stem(files.annotations, name, _XML)
        annotated = read[file] if file in read else tolerant(partial(_no_annotations, files, name))
        if file is None or annotated is None:
            continue
        path, objects = _image(find_image, name, annotated.stated_name), annotated.objects
        size = annotated.size_hw or records.size_of(path, image_id)
        if size is None:
            continue
        boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
        labels = np.array([label_of[class_name] for class_name, _ in objects], np.int64)
        records.add(path, size, boxes, labels, image_id)
    categories = tuple(Category(label + 1, name) for name, label in label_of.items())
    return AnnotationSet(folder, split, categories, tuple(records.images))


def _annotations_folder(folder: Path) -> Path | None:
    found = Folders().entry(folder, "Annotations")
    return found if found and found.is_dir() else None


def _lists_folder(folder: Path) -> Path | None:
    """Return the folder of lists, one a split; sets that were labelled for parts of persons have them in Layout."""
    lists = (folder / "ImageSets" / name for name in ("Main", "Layout"))
    return next((place for place in lists if place.is_dir()), None)


def _beside_images(folder: Path) -> dict[str, SplitFiles]:
    """Return the splits of folders such as train/ and valid/, or else the folder as the split to train on."""
    found = [name for name in _SPLIT_FOLDERS if files_below(folder / name, _XML)]
    if found:
        return by_split((name, SplitFiles(folder / name)) for name in found)
    return {"train": SplitFiles(folder)} if files_below(folder, _XML) else {}


def _files(folder: Path, split: str, tolerant: Tolerant) -> _Files:
    annotations = _annotations_folder(folder)
    if annotations is None:
        own = files_below(folder, _XML)
        family = [folder.parent / name for name in _SPLIT_FOLDERS] if folder.name in _SPLIT_FOLDERS else [folder]
        everywhere = [file for member in family for file in files_below(member, _XML)]
        return _Files([file.stem for file in own], folder, folder, folder, everywhere)
    everywhere = files_below(annotations, _XML, nested=True)
    folders = Folders()
    images = next((found for name in _IMAGE_FOLDERS if (found := folders.entry(folder, name))), folder)
    lists = _lists_folder(folder)
    if lists is None:
        names = [file.relative_to(annotations).with_suffix("").as_posix() for file in everywhere]
        return _Files(names, annotations, annotations, images, everywhere)
    split_file = lists / f"{split}.txt"
    lines = read_text(split_file, "the list of images", tolerant.tolerate).splitlines()
    known = {file.relative_to(annotations).with_suffix("").as_posix() for file in everywhere}
    names = [_listed_name(line.strip(), known) for line in lines if line.strip()]
    return _Files(names, split_file, annotations, images, everywhere)


def _listed_name(line: str, known: set[str]) -> str:
    """Return the name in a line of a list: it may hold blanks, have a suffix, or be followed by a column."""
    path = plain_path(line)
    first = path.split()[0]
    readings = (path, first, *(name.rpartition(".")[0] for name in (path, first) if _has_image_suffix(name)))
    return next((name for name in readings if name in known), readings[-1] if _has_image_suffix(first) else first)


def _has_image_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


class _Annotated(NamedTuple):
    """The content of one XML file: its objects, (height, width) if stated, and the stated name of the image."""

    objects: list[Row]
    size_hw: tuple[int, int] | None
    stated_name: str


def _read(file: Path, tolerant: Tolerant) -> _Annotated:
    root = _parse(file, tolerant)
    return _Annotated(_objects(file, root, tolerant), _size(file, root), (root.findtext("filename") or "").strip())


def _no_annotations(files: _Files, name: str) -> NoReturn:
    raise DataError(
        "a listed image has no annotations",
        file=files.listed_in,
        got=f"{name}: no {name}.xml",
        sought=files.annotations / f"{name}.xml",
    )


def _parse(file: Path, tolerant: Tolerant) -> ElementTree.Element:
    """Return the root element; entities are refused, as a few lines of them can fill the memory."""
    content = read_bytes(file, "the annotations")
    declared = _DECLARATION.match(content)
    # not left to the parser, which knows few encodings and takes "utf8" for none
    text = decode(content, file, "the annotations", tolerant.tolerate, declared and declared[1].decode())
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{file.name}: the annotations are not plain XML", file=file, expected="no document type")
    try:
        return ElementTree.fromstring(_DECLARATION_OF_TEXT.sub("", text, count=1))
    except (ElementTree.ParseError, ValueError) as error:  # the latter for half of a surrogate pair
        raise DataError(f"{file.name}: the annotations are not XML", file=file, got=error) from None


_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_DECLARATION_OF_TEXT = re.compile(r"\A\ufeff?\s*<\?xml[^>]*\?>")


def _objects(file: Path, root: ElementTree.Element, tolerant: Tolerant) -> list[Row]:
    """Return (class name, box xyxy) of every object."""
    rows = []
    for position, element in enumerate(root.iter("object"), start=1):
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        box = _numbers(texts)
        expected = "a name and a bndbox of four finite numbers"
        other = _other_shape(element) if box is None and name else None
        if other:
            what, box = other
            message, done = f"{file.name}: object {position} is {what}", f"boxes made of {what.partition(' ')[2]}s"
            tolerant.accept(Repairable(message, done=done, file=file, expected=expected))
        elif not name or box is None:
            got = f"name {name!r}, bndbox {texts}"
            raise DataError(f"{file.name}: object {position} is malformed", file=file, expected=expected, got=got)
        rows.append((name, box))
    return rows


def _other_shape(element: ElementTree.Element) -> tuple[str, tuple[float, ...]] | None:
    """Return what an object without a bndbox is, and its bounds as corners; None where it is nothing that is known."""
    turned = _numbers([element.findtext(f"robndbox/{part}") for part in ("cx", "cy", "w", "h", "angle")])
    if turned is not None:
        x, y, w, h = rotated_bounds(*turned)
        return "a rotated box", (x, y, x + w, y + h)
    points = [e.text for e in element.findall("polygon/pt/x")], [e.text for e in element.findall("polygon/pt/y")]
    if not points[0]:
        numbered = sorted(element.iterfind("polygon/*"), key=lambda e: (len(e.tag), e.tag))
        points = tuple([e.text for e in numbered if e.tag[0] == axis] for axis in "xy")  # type: ignore[assignment]
    across, down = _numbers(points[0]), _numbers(points[1])
    if not across or not down or len(across) != len(down):
        return None
    return "a polygon", (min(across), min(down), max(across), max(down))


def _numbers(texts: list[str | None]) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(text or "") for text in texts)
    except ValueError:
        return None
    return numbers if np.isfinite(np.array(numbers, np.float32)).all() else None


def _size(file: Path, root: ElementTree.Element) -> tuple[int, int] | None:
    """Return (height, width) as stated, or None when the file states none or zero, as some tools write."""
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if not all(texts):
        return None
    numbers = _numbers(texts)
    if numbers is None or min(numbers) < 0:
        raise DataError(f"{file.name}: the size is malformed", file=file, got=texts)
    height, width = (int(n) for n in numbers)
    return (height, width) if height and width else None


def _image(find_image: ImageFinder, name: str, stated: str) -> Path:
    """Return the path of an image: the listed name with any suffix, else what the XML calls it."""
    found = find_image.with_stem(name)
    if found is None and stated:
        path = find_image(stated)
        found = path if is_file(path) else None
    return found or find_image(f"{name}.jpg")


_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")  # in XML or a list


def _write_splits(sets: Mapping[str, AnnotationSet], folder: Path) -> dict[str, Path]:
    """Write the list and the XML files of every split."""
    files = {}
    for split, annotation_set in sets.items():
        names = [category.name for category in annotation_set.categories]
        for name in (*names, *(image.path.stem for image in annotation_set.images)):
            if name != name.strip() or not name or _UNWRITABLE.search(name):
                raise DataError(
                    "Pascal VOC cannot hold a name", got=repr(name), expected="characters of XML, on one line"
                )
        for image in annotation_set.images:
            write_file(folder / "Annotations" / f"{image.path.stem}.xml", _to_xml(image, names))
        files[split] = folder / "ImageSets" / "Main" / f"{split}.txt"
        write_file(files[split], "".join(f"{image.path.stem}\n" for image in annotation_set.images).encode())
    return files


def _to_xml(image: ImageRecord, names: list[str]) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = image.path.name
    _add(root, "size", {"width": image.width, "height": image.height, "depth": 3})
    for label, box in zip(image.labels.tolist(), image.boxes_xyxy.tolist(), strict=True):
        element = _add(root, "object", {"name": names[label], "difficult": 0})
        _add(element, "bndbox", {corner: f"{value:.8g}" for corner, value in zip(_CORNERS, box, strict=True)})
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8"))


def _add(parent: ElementTree.Element, tag: str, values: Mapping[str, object]) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    for name, value in values.items():
        ElementTree.SubElement(element, name).text = str(value)
    return element


WRITER = Writer("JPEGImages", _write_splits)
