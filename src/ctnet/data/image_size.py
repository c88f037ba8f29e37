"""Height and width of a picture from its first bytes, hundreds of times faster than decoding it."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from ctnet.data.image import read_image
from ctnet.errors import DataError

_NOT_FRAMES = {0xC4, 0xC8, 0xCC}
"""markers between C0 and CF that start no frame: Huffman tables, reserved, arithmetic coding"""
_ORIENTATION = 0x0112


def read_image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as `read_image` would, EXIF rotation included. Raises DataError as it does.

    JPEG and PNG are read by their headers, PNG with EXIF and everything else is decoded.
    """
    try:
        with path.open("rb") as file:
            start = file.read(24)
            if start.startswith(b"\x89PNG") and len(start) == 24:
                width, height = struct.unpack(">II", start[16:])
                if not _png_has_exif(file):
                    return height, width
            if start.startswith(b"\xff\xd8"):
                file.seek(2)
                size = _jpeg_size(file)
                if size:
                    return size
    except FileNotFoundError:
        raise DataError("the picture is missing", file=path) from None
    except (OSError, struct.error):
        pass  # read_image below finds the words for it
    image = read_image(path)
    return image.shape[0], image.shape[1]


def _png_has_exif(file: BinaryIO) -> bool:
    """Say whether there is an EXIF chunk before the pixels, which may turn the picture."""
    file.seek(8)
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"eXIf", b"IDAT", b"IEND"):
            return bool(kind == b"eXIf")
        file.seek(length + 4, os.SEEK_CUR)


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return (height, width) from the frame header, or None when the segments end before one."""
    turned = False
    while True:
        mark, kind = struct.unpack(">BB", file.read(2))
        if mark != 0xFF:
            return None
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= kind <= 0xCF and kind not in _NOT_FRAMES:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return (width, height) if turned else (height, width)
        content = file.read(length - 2)
        if kind == 0xE1 and content.startswith(b"Exif\0\0"):
            turned = _exif_orientation(content[6:]) >= 5


def _exif_orientation(tiff: bytes) -> int:
    """Return the orientation 1..8 of a TIFF header; from 5 on width and height change places."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:
        pass  # a broken tag is no tag, as OpenCV sees it
    return 1
