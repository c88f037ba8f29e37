"""The text of annotation files, in the encodings that labelling tools save them in."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ctnet.data.layouts.layout import Repairable, Tolerate
from ctnet.errors import DataError
from ctnet.files import POINTER, read_file
from ctnet.limits import TEXT_BYTES, Limit

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_NAMES = ("utf", "gb", "big5", "shift", "euc", "iso", "cp", "koi", "ascii", "latin", "mac", "johab")
"""how the names of encodings begin that text is saved in; Python has others, which transform more than letters"""
_HIGH = re.compile(rb"[\x80-\xff]+")


def read_text(file: Path, what: str, tolerate: Tolerate | None = None, most: Limit = TEXT_BYTES) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 where it begins with their mark.

    `what` names the content in errors. Raises DataError for what cannot be read, for git-lfs pointers and for other
    encodings; `tolerate`, if given, gets the error of an encoding, and the text is what the likeliest one makes of it.
    """
    return decode(read_bytes(file, what, most), file, what, tolerate)


def read_bytes(file: Path, what: str, most: Limit = TEXT_BYTES) -> bytes:
    """Return the content of an annotation file. Raises DataError for what cannot be read and git-lfs pointers."""
    try:
        content = read_file(file, most)
    except OSError as error:
        raise DataError(f"cannot read {what}", file=file, got=error.strerror or error) from None
    if content.startswith(POINTER):
        raise DataError(f"{what} are a git-lfs pointer, not the file itself", file=file, hint="run `git lfs pull`")
    return content


def decode(content: bytes, file: Path, what: str, tolerate: Tolerate | None = None, declared: str | None = None) -> str:
    """Return the text of `content`, which is in UTF-8 unless it begins with a mark or `declared` names an encoding.

    Raises DataError, or calls `tolerate`, as `read_text` does.
    """
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    encoding = marked or _known(declared) or "utf-8"
    try:
        text = content.decode(encoding)
    except (UnicodeError, ValueError) as error:
        likely, text = _guess(content)
        problem = Repairable(
            f"{what} are not saved in {'UTF-8' if encoding == 'utf-8' else declared or encoding}",
            done="files saved in UTF-8",
            file=file,
            got=f"what looks like {likely}: {error}",
            hint="save the file in UTF-8, or let ctnet data check --fix do it",
        )
        if tolerate is None:
            raise problem from None
        tolerate(problem)
    if "\0" in text:
        raise DataError(f"{what} hold a NUL character", file=file)
    return text


def _known(name: str | None) -> str | None:
    """Return Python's name of an encoding of text, None for what is none."""
    try:
        found = codecs.lookup(name or "").name
    except (LookupError, ValueError):
        return None
    return found if found.startswith(_NAMES) else None


def _guess(content: bytes) -> tuple[str, str]:
    """Return the name of the encoding that text which is not UTF-8 is likely in, and the text.

    In GBK letters beyond ASCII are pairs of bytes, most of both halves beyond ASCII; in Western ones they are single.
    """
    runs = [len(run) for run in _HIGH.findall(content)]
    if sum(length % 2 == 0 for length in runs) * 2 > len(runs):
        try:
            return "GBK", content.decode("gb18030")
        except UnicodeError:
            pass
    return "Windows-1252", content.decode("cp1252", "replace")
