"""Sets whose annotations are JSON of a labelling tool: one file an image, or one a split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ctnet.data.layouts.labelled import Labelled, Named, annotation_set, image_folders, load_json, understanding
from ctnet.data.layouts.layout import Layout, SplitFiles, Tolerate, by_split
from ctnet.data.layouts.names import files_below
from ctnet.data.layouts.places import files_in, folders_below, stated_split
from ctnet.data.layouts.tolerant import Tolerant
from ctnet.errors import DataError
from ctnet.files import is_file
from ctnet.limits import TEXT_BYTES
from ctnet.types import AnnotationSet

_JSON = (".json",)
_MOST_FILES = 16  # of a folder that may be one a split
_LOOKED_AT = 3  # files of a folder with one an image
_HEAD = 1 << 16


class RawImage(NamedTuple):
    """An image as its tool describes it: name, (height, width) if stated, objects, and what reads one of those."""

    name: str
    size_hw: tuple[int, int] | None
    objects: Iterable[Any]
    read: Callable[[Any], list[Named]]
    stem: str = ""
    """name without suffix by which the image is found where it was renamed together with its annotations"""


class Tool(NamedTuple):
    """A labelling tool: whether it wrote a content, and the images in one. Both may fail in any way on others."""

    fits: Callable[[Any], bool]
    images: Callable[[Path, Any], Iterator[RawImage]]
    one_an_image: bool = False


def json_layout(name: str, title: str, sought: tuple[str, ...], tool: Tool) -> Layout:
    """Return the row of a tool."""
    return Layout(name, title, sought, partial(find_json, tool), partial(_read, tool))


def find_json(tool: Tool, path: Path) -> dict[str, SplitFiles]:
    """Return the splits that the tool wrote: a file, a folder of files, or of folders."""
    if path.is_file():
        fits = path.suffix.lower() in _JSON and _fits(tool, path)
        return {"train": SplitFiles(path, image_folders(path), serves_any=True)} if fits else {}
    places = [place for folder in folders_below(path) for place in _places(tool, folder)]
    words = {place: stated_split(place, path) for place in places}
    if tool.one_an_image and places and not any(words.values()):
        return {"train": SplitFiles(path, tuple(dict.fromkeys(f for p in places for f in image_folders(p))))}
    return by_split((words[p] or p.stem, SplitFiles(p, image_folders(p, words[p]))) for p in places)


def _places(tool: Tool, folder: Path) -> list[Path]:
    """Return the files of the tool in a folder, or the folder itself where there is one an image."""
    files = files_in(folder, _JSON)
    if tool.one_an_image:
        return [folder] if any(_fits(tool, file) for file in files[:_LOOKED_AT]) else []
    return [file for file in files if _fits(tool, file)] if len(files) <= _MOST_FILES else []


def _fits(tool: Tool, file: Path) -> bool:
    try:
        return tool.fits(_first_look(file, file.stat().st_mtime_ns))
    except (OSError, DataError, LookupError, TypeError, AttributeError, ValueError):
        return False


@lru_cache(64)
def _first_look(file: Path, _: int) -> Any:
    """Return the content of a file without its long lists: what is needed to know the tool."""
    if file.stat().st_size > TEXT_BYTES.most:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
        return {name.decode(): [] for name in re.findall(rb'"(images|annotations|categories)"\s*:\s*\[', head)}
    return _shortened(load_json(file))


def _shortened(content: Any, depth: int = 4) -> Any:
    if isinstance(content, list):
        return [_shortened(value, depth - 1) for value in content[:2]] if depth else []
    if isinstance(content, dict):
        few = list(content.items())[:64]
        return {key: _shortened(value, depth - 1) for key, value in few} if depth else {}
    return content[:64] if isinstance(content, str) else content


def _read(tool: Tool, files: SplitFiles, split: str, tolerate: Tolerate | None) -> AnnotationSet:
    tolerant = Tolerant(tolerate)
    found = [files.file] if is_file(files.file) else _of_tool(tool, files_below(files.file, _JSON, nested=True))
    labelled = [image for file in found for image in tolerant(partial(_images, tool, file, tolerant)) or []]
    return annotation_set(files.file, split, labelled, files.image_folders)


def _of_tool(tool: Tool, files: list[Path]) -> Iterator[Path]:
    """Yield the files that are not another one's, such as the description of a project."""
    for file in files:
        with_mistakes = file.stat().st_size == 0 or file.read_bytes()[:1] not in b"{["
        if with_mistakes or _fits(tool, file):
            yield file


def _images(tool: Tool, file: Path, tolerant: Tolerant) -> list[Labelled]:
    content = load_json(file)
    with understanding(file, "the file", "images and their objects", content):
        raw = list(tool.images(file, content))
    labelled = []
    for image in raw:
        with understanding(file, "an image", "a name and a list of objects", image):
            name, objects = str(image.name), list(image.objects)
        if "\0" in name or not name:
            raise DataError(f"{file.name}: an image has no usable name", file=file, got=repr(name))
        read = partial(_objects, file, name, image.read)
        named = [one for found in tolerant.each(read, objects) for one in found]
        labelled.append(Labelled(name, image.size_hw, named, image.stem))
    return labelled


def _objects(file: Path, name: str, read: Callable[[Any], list[Named]], entry: Any) -> list[Named]:
    with understanding(file, f"an object of {Path(name).name}", "a class and a shape of finite numbers", entry):
        found = read(entry)
        if not all(isinstance(named.class_name, str) and named.class_name for named in found):
            raise ValueError
        return found
