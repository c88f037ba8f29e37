"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctnet.errors import StorageError


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


def is_file(path: Path) -> bool:
    """Say whether there is such a file: none where looking fails, for want of rights or for a name that none can have.

    Path.is_file raises in some of these cases.
    """
    return os.path.isfile(path)  # noqa: PTH113


def exists(path: Path) -> bool:
    """Say whether there is anything at the path, as `is_file` does."""
    return os.path.exists(path)  # noqa: PTH110


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
