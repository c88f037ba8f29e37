"""Files that appear whole or not at all, and are read only when they are files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctnet.errors import StorageError
from ctnet.limits import FILE_BYTES, Limit, TooMuch


def read_file(path: Path, most: Limit = FILE_BYTES) -> bytes:
    """Return the content of an ordinary file; a pipe or a device, which might never end, is not opened.

    Raises OSError, its `strerror` in words for the user, also for a file of more bytes than `most`.
    """
    try:
        most.check(require_file(path))
    except TooMuch as error:
        raise OSError(errno.EFBIG, str(error), str(path)) from None
    return path.read_bytes()


def require_file(path: Path) -> int:
    """Return the number of bytes in an ordinary file. Raises OSError, its `strerror` in words, for anything else."""
    try:
        found = path.stat()
    except ValueError as error:  # a NUL, which no name has
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no ordinary file, but a pipe, a socket or a device", str(path))
    return found.st_size


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, making its folder; a reader sees the old file or the new one, never a part.

    Raises StorageError when the disk refuses.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise StorageError, naming `path`, when the disk refuses what the block does."""
    try:
        yield
    except OSError as error:
        raise StorageError("cannot write the file", file=path, got=error.strerror or error) from None


def require_writable(folder: Path) -> None:
    """Raise StorageError unless files can be written into the folder, or into the one that it would be made in."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        got = "no rights to write" if there.is_dir() else f"{there} is a file"
        raise StorageError("cannot write there", folder=folder, got=got)


def new_numbered_folder(parent: Path, name: str) -> Path:
    """Return the next free folder `parent/NAME-N`, made now, so that two commands at once never share one."""
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise StorageError(
                "cannot make the folder", folder=folder, got=error.strerror, hint="--out names another"
            ) from None
        else:
            return folder


def cache_folder() -> Path:
    """Return where ctnet keeps what it can make again: CTNET_HOME, else `~/.cache/ctnet`."""
    return Path(os.environ.get("CTNET_HOME") or "~/.cache/ctnet").expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, what was written there takes its place.

    The content is on the disk before the old file goes. Raises StorageError when the disk refuses, the old file
    being as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
