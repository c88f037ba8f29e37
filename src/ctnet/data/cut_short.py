"""Images whose file ends too early: what is left of them, and whether it is enough."""

from __future__ import annotations

import mmap
import struct
import zlib
from binascii import crc32
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_FILLERS = (b"\xaa\x2a" * 256, b"\x55\x11" * 256)
_LOST, _BLOCKS = 0.1, 16
"""the largest part of the rows that may be lost, or one row of JPEG's blocks where that is no more than a quarter"""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types


def lacks_end(content: bytes | mmap.mmap) -> bool:
    """Return whether a JPEG or PNG stops before its end marker, which OpenCV decodes into a half-grey image or none.

    Bytes behind the end are common and harmless, and an embedded thumbnail has an end marker of its own: so the last
    end marker must come after the last start of a scan.
    """
    if content[:2] == b"\xff\xd8":
        return content[-2:] != _END and content.rfind(_END) <= content.rfind(_SCAN)
    return content[:8] == _PNG and not 0 <= content.rfind(b"IEND") <= len(content) - len(b"IEND....")


def decode_without_end(content: bytes, mode: int) -> tuple[NDArray[Any] | None, int]:
    """Return what `cv2.imdecode` makes of an image that lacks its end, and how many of its rows the file holds.

    None for the image when so many rows are missing that nobody would take it for the whole.
    """
    if content.startswith(_PNG):
        whole, rows = _completed_png(content)
        image = None if whole is None else _decode(whole, mode)
    else:
        # what is decoded beyond the file's end depends on what follows it, and what lies before does not
        image, other = (_decode(content + filler + _END, mode) for filler in _FILLERS)
        if image is None or other is None:
            return None, 0
        differ = (image != other).reshape(len(image), -1).any(axis=1)
        rows = int(differ.argmax()) if differ.any() else len(image)
    if image is None or len(image) - rows > max(_LOST * len(image), min(_BLOCKS, len(image) / 4)):
        return None, rows
    return image, rows


def _decode(content: bytes, mode: int) -> NDArray[Any] | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image)


def _completed_png(content: bytes) -> tuple[bytes | None, int]:
    """Return the PNG with black rows in place of those that are missing, and how many are there."""
    at, head, packed = 8, content[:8], b""
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        elif not packed:
            head += content[at : at + 12 + length]
        at += 12 + length
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    row = 1 + (width * depth * _CHANNELS.get(color, 4) + 7) // 8
    if interlaced or not packed:
        return None, 0
    try:
        pixels = zlib.decompressobj().decompress(packed, row * height)
    except zlib.error:
        return None, 0
    rows = len(pixels) // row
    body = b"IDAT" + zlib.compress(pixels[: rows * row].ljust(row * height, b"\0"), 1)
    tail = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", crc32(c)) for c in (body, b"IEND"))
    return head + tail, rows
