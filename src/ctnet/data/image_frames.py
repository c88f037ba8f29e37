"""How many frames or pages an image file holds."""

from __future__ import annotations

import struct

_MOST = 1 << 16  # pages of a TIFF, whose directories may form a circle


def count_frames(content: bytes) -> int:
    """Return the number of frames (GIF, WebP, PNG, AVIF) or pages (TIFF) in the bytes of an image, at least 1.

    The frames of an AVIF sequence count as 2. Damaged files count as far as they can be understood.
    """
    if content.startswith(b"GIF8"):
        return _gif_frames(content)
    if content[:4] == b"RIFF" and content[12:16] == b"VP8X" and content[20:21] and content[20] & 2:
        return max(1, content.count(b"ANMF"))
    if content.startswith(b"\x89PNG"):
        at = content.find(b"acTL", 0, max(0, content.find(b"IDAT")))
        return max(1, int.from_bytes(content[at + 4 : at + 8], "big")) if at > 0 else 1
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _pages(content)
    return 2 if content[4:12] == b"ftypavis" else 1


def _gif_frames(content: bytes) -> int:
    """Walk over the blocks of a GIF: extensions (0x21) and images (0x2c), each of sub-blocks with their lengths."""
    frames, at = 0, 13 + _color_table(content[10:11])
    while at < len(content) and content[at] in b"\x21\x2c":
        image = content[at] == 0x2C
        frames += image
        at += 11 + _color_table(content[at + 9 : at + 10]) if image else 2
        while at < len(content) and content[at]:
            at += content[at] + 1
        at += 1
    return max(1, frames)


def _color_table(flags: bytes) -> int:
    """Return the bytes of the colour table that the flags tell of."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _pages(content: bytes) -> int:
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    offset, number, entry, start = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    pages = 0
    try:
        (at,) = struct.unpack_from(order + offset, content, start)
        while at and pages < _MOST:
            (entries,) = struct.unpack_from(order + number, content, at)
            pages += 1
            (at,) = struct.unpack_from(order + offset, content, at + struct.calcsize(number) + entry * entries)
    except (struct.error, OverflowError):
        pass
    return max(1, pages)
