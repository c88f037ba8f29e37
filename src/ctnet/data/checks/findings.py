"""The kinds of findings of a data check, each with severity, text and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

Severity = Literal["error", "warning", "info"]

_EXAMPLES = 100


class Kind(NamedTuple):
    """One kind of finding: `what` follows its count."""

    severity: Severity
    what: str
    hint: str = ""


_REPAIR = "--fix OUT repairs it"

KINDS: dict[str, Kind] = {
    "annotations-unreadable": Kind("error", "places in annotation files that cannot be understood"),
    "annotations-repairable": Kind("error", "places in annotation files that are not as they must be", _REPAIR),
    "annotations-doubtful": Kind("warning", "doubtful things in annotation files"),
    "entry-malformed": Kind("error", "entries that are not as COCO describes them", _REPAIR),
    "image-missing": Kind("error", "images that are missing", "put them in place, or name their folder in a YAML"),
    "image-empty": Kind("error", "images of zero bytes", _REPAIR),
    "image-unreadable": Kind("error", "images that cannot be decoded", _REPAIR),
    "image-cut": Kind(
        "warning", "images whose last bytes are missing", "nearly all of their pixels are there and used"
    ),
    "image-forbidden": Kind("error", "images that you may not read", "change the rights of file and folder"),
    "image-left-out": Kind(
        "error",
        "images that cannot be read",
        "replace them; data.on_bad_image=skip leaves them out where others are left",
    ),
    "image-suffix": Kind("warning", "images whose suffix is that of another format", "ctnet reads them all the same"),
    "image-converted": Kind("info", "kinds of image files that are not used as they are"),
    "image-size-differs": Kind(
        "error", "images of another size than stated", f"{_REPAIR}, and moves boxes that were drawn on the stated size"
    ),
    "images-none": Kind("error", "splits without an image"),
    "image-id-repeated": Kind("error", "image ids used more than once", _REPAIR),
    "image-file-repeated": Kind(
        "error",
        "images listed more than once",
        "restore the folders in which the files had the same name, or merge the entries of one image",
    ),
    "image-unknown": Kind("error", "annotations of an image that is not listed", _REPAIR),
    "category-unknown": Kind("error", "annotations of a category that is not listed", _REPAIR),
    "categories-refused": Kind("error", "splits whose categories cannot be trained on"),
    "category-repeated": Kind("error", "category ids or names used more than once", "name each class once"),
    "annotation-id-repeated": Kind("error", "annotation ids used more than once", _REPAIR),
    "box-malformed": Kind("error", "boxes that are not four finite numbers", _REPAIR),
    "area-malformed": Kind("error", "areas that are not finite numbers", _REPAIR),
    "crowd-malformed": Kind("error", "values of iscrowd that are neither 0 nor 1", _REPAIR),
    "area-zero": Kind("warning", "areas of 0 of boxes that have one", "the area of the box is taken"),
    "box-empty": Kind(
        "error",
        "boxes of no or negative width or height",
        f"training leaves them out, evaluation counts them and none can be found; {_REPAIR}",
    ),
    "box-outside": Kind(
        "error", "boxes reaching outside of their image", f"training clips them, evaluation does not; {_REPAIR}"
    ),
    "box-repeated": Kind("warning", "boxes that are there twice", _REPAIR),
    "box-corners": Kind(
        "error",
        "boxes outside: most boxes look like xyxy stored as xywh",
        f"{_REPAIR}, ctnet data convert FILE --from xyxy, too",
    ),
    "box-normalised": Kind("error", "boxes within one pixel: most look like fractions", _REPAIR),
    "keypoints-malformed": Kind("error", "key points that are not three finite numbers each"),
    "keypoints-count": Kind("error", "objects with another number of key points than their category has"),
    "keypoints-visibility": Kind(
        "error",
        "objects whose key points have a visibility other than 0, 1 and 2",
        "0: not labelled, 1: hidden, 2: visible; training takes all above 0 as labelled",
    ),
    "keypoints-zero": Kind(
        "error", "objects with key points at 0, 0 that are marked as labelled", "set their visibility to 0"
    ),
    "keypoints-outside": Kind(
        "warning", "objects with labelled key points outside of their image", "training leaves those points out"
    ),
    "keypoints-mirrored": Kind(
        "warning",
        "objects whose left and right points are swapped, most of those that show it",
        "left is a person's own left, but the left of the image for five landmarks of a face",
    ),
    "boxes-unusable": Kind(
        "error",
        "splits without a box that can be learned",
        "data.allow_background=true (--allow-background) trains the background alone",
    ),
    "boxes-none": Kind("warning", "splits without a box", "nothing can be scored on them"),
    "class-unused": Kind("warning", "classes without a box that can be learned"),
    "class-missing": Kind("warning", "classes with boxes in another split and none in this"),
    "image-crowded": Kind("warning", "images with more boxes than the settings allow"),
    "box-tiny": Kind("warning", "boxes smaller than one output cell", "a larger image_size helps"),
    "centres-collide": Kind(
        "warning", "boxes that share class and output cell with another", "only one of them can be detected"
    ),
    "image-in-two-splits": Kind("warning", "images that are the same, byte for byte, in another split"),
    "split-missing": Kind("info", "splits that training looks for and does not find", "it trains, without an AP"),
    "category-ids-mapped": Kind("info", "category ids that are not 1, 2, 3, ...", "they are kept"),
    "image-unannotated": Kind("info", "images without annotations", "they train the background"),
}


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one annotation file; `count` cases, the first few as `examples`."""

    severity: Severity
    code: str
    file: str
    count: int
    message: str
    hint: str
    examples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def found(code: str, file: Path, examples: Sequence[str], *, of: int | None = None) -> Iterator[Finding]:
    """Yield the finding that the examples make, one case each, or nothing without them.

    `of` adds how many there are in all.
    """
    if not examples:
        return
    kind = KINDS[code]
    share = ""
    if of:
        share = f" of {of}" + (f" ({len(examples) / of:.0%})" if len(examples) * 100 >= of else "")
    message = f"{file.name}: {len(examples)}{share} {kind.what}; first: {examples[0]}"
    yield Finding(kind.severity, code, str(file), len(examples), message, kind.hint, tuple(examples[:_EXAMPLES]))
