"""The contract of a data layout: one row of the table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ctnet.errors import DataError
from ctnet.types import AnnotationSet

CocoContent = dict[str, list[Any]]
"""the lists images, annotations and categories of a COCO ground truth, as far as they can be understood"""
Tolerate = Callable[[DataError], None]
"""takes the error of a line, file or image that is then left out"""

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""names of splits on disk, in lower case, and ctnet's"""


class Repairable(DataError):
    """What is not as it must be, though its meaning is clear. `done` are the words for its repair, behind a count."""

    def __init__(self, message: str, *, done: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.done = done


class SplitFiles(NamedTuple):
    """Where one split lies on disk.

    `file` is what the layout's reader opens and messages name: a file, a folder or an archive. Images are looked for
    in `image_folders`, in that order, where the layout does not state their paths. `key` is the split's own name where
    that differs from ctnet's (`valid`, `Train`); `serves_any` marks a file that states no split: it is whichever split
    is asked for.
    """

    file: Path
    image_folders: tuple[Path, ...] = ()
    key: str = ""
    serves_any: bool = False


class Writer(NamedTuple):
    """How a layout is written.

    `write(sets, folder)` writes the annotations of all splits, whose images lie in `folder / image_folder`
    already (`{split}` in it stands for the name), and returns by split the file that `ctnet data convert` prints. Only
    a layout with `keypoints` gets sets that have any.
    """

    image_folder: str
    write: Callable[[Mapping[str, AnnotationSet], Path], dict[str, Path]]
    keypoints: bool = False


@dataclass(frozen=True)
class Layout:
    """A data layout: how it is recognised, read, checked and written.

    `find(path)` gets a folder, file or archive that exists and returns its splits by name, none when it is of another
    layout; it reads listings and small files only, and raises DataError for a set of this layout that is not usable.
    `sought` are the names that it looks for, for the message when no layout fits.

    `read(files, split, tolerate)` returns one split and raises DataError for what cannot be understood; `tolerate`,
    if given, takes such errors instead, and what they are about is left out, or, for a `Repairable` one, taken as it
    is meant.

    The checks and the repair work on COCO content. Without `content` it is made of what `read` understands; a layout
    whose files hold more than `read` accepts returns it from `content(files, tolerate)`.
    """

    name: str
    title: str
    sought: tuple[str, ...]
    find: Callable[[Path], dict[str, SplitFiles]]
    read: Callable[[SplitFiles, str, Tolerate | None], AnnotationSet]
    content: Callable[[SplitFiles, Tolerate], CocoContent] | None = None
    writer: Writer | None = None


class Split(NamedTuple):
    """One split of a data set, in the layout that it is in."""

    name: str
    layout: Layout
    files: SplitFiles

    def read(self, tolerate: Tolerate | None = None) -> AnnotationSet:
        """Return the annotations. Raises DataError; see `Layout` for `tolerate`."""
        return self.layout.read(self.files, self.name, tolerate)


def by_split(found: Iterable[tuple[str, SplitFiles]]) -> dict[str, SplitFiles]:
    """Return the files by ctnet's name of each split, with the name on disk as `key`.

    `Train`, `valid` and `train2017` become train, val and train, unless two splits would then have one name. A split
    that is alone, of a name that says nothing (`default`, `all`), is train.
    """
    named = [(_plain_name(name), name, files) for name, files in found]
    if len(named) == 1 and named[0][0] not in SPLIT_NAMES.values():
        named = [("train", *named[0][1:])]
    counts = Counter(plain for plain, _, _ in named)
    return {plain if counts[plain] == 1 else name: files._replace(key=name) for plain, name, files in named}


def _plain_name(name: str) -> str:
    without_year = re.sub(r"(?<=\D)\d{4}$", "", name)
    plain = SPLIT_NAMES.get(without_year.lower())
    return plain or without_year
