"""Zip archives, opened only when listing them takes little time and memory."""

from __future__ import annotations

import mmap
import struct
import zipfile
from pathlib import Path

from ctnet.limits import ZIP_DIRECTORY
from ctnet.weights.containers.mapped import mapped

# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.14 to 4.3.16
_END, _END_BYTES, _LOCATOR_BYTES, _LONGEST_COMMENT = b"PK\5\6", 22, 20, 0xFFFF
_LOCAL, _LOCAL_BYTES = b"PK\3\4", 30


def open_zip(path: Path) -> zipfile.ZipFile:
    """Return the archive, open. Raises OSError, BadZipFile, or TooMuch for a directory of millions of entries."""
    with mapped(path) as data:
        ZIP_DIRECTORY.check(_directory_bytes(data))
    return zipfile.ZipFile(path)


def content_start(data: mmap.mmap, entry: zipfile.ZipInfo) -> int:
    """Return the place of the first byte of an entry that is not compressed. Raises ValueError when it is not whole."""
    at = entry.header_offset
    if data[at : at + len(_LOCAL)] != _LOCAL:
        raise ValueError(f"{entry.filename} is not at the offset in the directory")
    name, extra = struct.unpack_from("<HH", data, at + 26)
    start: int = at + _LOCAL_BYTES + name + extra
    if start + entry.file_size > len(data):
        raise ValueError(f"{entry.filename} reaches beyond the end")
    return start


def _directory_bytes(data: mmap.mmap) -> int:
    """Return the number of bytes of the directory, 0 where there is none, in which case zipfile raises."""
    end = data.rfind(_END, max(0, len(data) - _END_BYTES - _LONGEST_COMMENT))
    if end < 0 or end + _END_BYTES > len(data):
        return 0
    (size,) = struct.unpack_from("<I", data, end + 12)
    if end >= _LOCATOR_BYTES and data[end - _LOCATOR_BYTES : end - _LOCATOR_BYTES + 4] == b"PK\6\7":
        (long_end,) = struct.unpack_from("<Q", data, end - _LOCATOR_BYTES + 8)
        if long_end + 48 <= len(data):
            size = max(size if size != 0xFFFFFFFF else 0, *struct.unpack_from("<Q", data, long_end + 40))
    return int(size)
