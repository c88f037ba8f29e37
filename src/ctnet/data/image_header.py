"""Image sizes from file headers, for every format that is decoded here."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

Content = bytes | mmap.mmap

_NOT_FRAMES = {0xC4, 0xC8, 0xCC}
"""markers between C0 and CF that start no frame: Huffman tables, reserved, arithmetic coding"""
_BOXES = 1 << 18  # bytes at the begin and at the end; among all bytes of a large image a mark may appear by chance
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_ORIENTATION_TAG, _SHORT = 0x0112, 3


class Header(NamedTuple):
    """Height and width as stored, and EXIF's orientation from 1 to 8; None where only decoding shows it."""

    height: int
    width: int
    orientation: int | None = None

    @property
    def turned(self) -> bool | None:
        """Whether decoding exchanges height and width, None where only decoding shows it."""
        return None if self.orientation is None else self.orientation >= 5


def read_header(content: Content) -> Header | None:
    """Return the size in the first bytes, or None for a file that is no image of a known format."""
    for start, read in _FORMATS:
        if re.match(start, content, re.DOTALL):
            try:
                return read(content)
            except (struct.error, ValueError, LookupError, OverflowError):
                return None
    return None


def _jpeg(content: Content) -> Header | None:
    """Walk over the segments as libjpeg does, which skips what lies between them."""
    orientation: int | None = None
    exif = 0
    at = 2
    while True:
        at = content.find(b"\xff", at)
        while at >= 0 and content[at] == 0xFF:
            at += 1
        if at < 0:
            return None
        kind = content[at]
        at += 1
        if kind == 0 or kind in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if length < 2 or kind in (0xD9, 0xDA):  # the pixels, before any size
            return None
        if 0xC0 <= kind <= 0xCF and kind not in _NOT_FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 3)
            return Header(height, width, orientation if exif else 1)
        if kind == 0xE1 and content[at + 2 : at + 8] == b"Exif\0\0":
            orientation = None if exif else _orientation(content[at + 8 : at + length])
            exif += 1
        at += length


def _orientation(tiff: bytes) -> int | None:
    """Return the orientation of EXIF, 1 without one, None where the tag is not exactly as it must be."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return None
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if (kind, number) == (_SHORT, 1) and 1 <= value <= 8 else None
    except struct.error:
        return None
    return 1


def _png(content: Content) -> Header:
    """Read the first chunk, and look for EXIF before the pixels."""
    width, height = struct.unpack_from(">II", content, 16)
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"eXIf":
            return Header(height, width)
        if kind in (b"IDAT", b"IEND"):
            return Header(height, width, 1)
        at += length + 12
    return Header(height, width)


def _bmp(content: Content) -> Header:
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return Header(abs(height), abs(width))


def _gif(content: Content) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    return Header(height, width)


def _webp(content: Content) -> Header | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return None
    return Header(height, width)


def _tiff(content: Content) -> Header:
    """Read the first directory, of ordinary files or of those beyond 4 GiB."""
    order = "<" if content[:2] == b"II" else ">"
    if struct.unpack_from(f"{order}H", content, 2)[0] == 43:
        (at,) = struct.unpack_from(f"{order}Q", content, 8)
        (count,), first, form = struct.unpack_from(f"{order}Q", content, at), at + 8, f"{order}HHQ"
    else:
        (at,) = struct.unpack_from(f"{order}I", content, 4)
        (count,), first, form = struct.unpack_from(f"{order}H", content, at), at + 2, f"{order}HHI"
    sides = {256: 0, 257: 0}
    step = struct.calcsize(form) * 3 // 2 if form.endswith("I") else 20
    for entry in range(first, first + step * min(count, 4096), step):
        tag, kind, _ = struct.unpack_from(form, content, entry)
        if tag in sides:
            value = struct.unpack_from(order + {3: "H", 4: "I", 16: "Q"}[kind], content, entry + struct.calcsize(form))
            sides[tag] = max(sides[tag], value[0])
    return Header(sides[257], sides[256])


def _words(pattern: bytes) -> Callable[[Content], Header | None]:
    """Return a reader of headers in ASCII, of which the pattern finds `w` and `h`."""

    def read(content: Content) -> Header | None:
        found = re.search(pattern, content[:4096], re.DOTALL)
        return Header(int(found["h"]), int(found["w"])) if found else None

    return read


def _largest(mark: bytes, skip: int) -> Callable[[Content], Header | None]:
    """Return a reader of boxes in boxes: the largest width and height that lie `skip` bytes behind a mark's begin."""

    def read(content: Content) -> Header | None:
        ends = content[:_BOXES] + content[max(_BOXES, len(content) - _BOXES) :]
        sizes = [struct.unpack_from(">II", ends, found.start() + skip) for found in re.finditer(re.escape(mark), ends)]
        return Header(max(h for _, h in sizes), max(w for w, _ in sizes)) if sizes else None

    return read


_SPACE = rb"(?:\s|#[^\n]*\n)+"

_FORMATS: tuple[tuple[bytes, Callable[[Content], Header | None]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n....IHDR", _png),
    (rb"BM", _bmp),
    (rb"GIF8", _gif),
    (rb"RIFF....WEBP", _webp),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"P[1-6Ff]\s", _words(rb"^P." + _SPACE + rb"(?P<w>\d{1,9})" + _SPACE + rb"(?P<h>\d{1,9})\s")),
    (rb"P7\s", _words(rb"(?=.*\nWIDTH (?P<w>\d{1,9})\s)(?=.*\nHEIGHT (?P<h>\d{1,9})\s)")),
    (rb"#\?R", _words(rb"\n[-+]Y (?P<h>\d{1,9}) [-+]X (?P<w>\d{1,9})\n")),
    (rb"\x59\xa6\x6a\x95", _largest(b"\x59\xa6\x6a\x95", 4)),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _largest(b"\xff\x4f\xff\x51", 8)),
    (rb"....ftyp(?:avi[fs]|mif1|msf1|hei[cxms]|hev[cx])", _largest(b"ispe", 8)),
)
"""how files of a format begin (https://www.garykessler.net/library/file_sigs.html), and how each states its size"""
