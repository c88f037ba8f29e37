"""A memory-mapped file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Give the file as bytes and as a stream; a read of more than is left returns what is left, and reserves no more.

    Raises OSError when it cannot be opened and ValueError when it is empty.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data
