"""Atomic writes, and reads of ordinary files only."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctnet.errors import StorageError
from ctnet.limits import FILE_BYTES, Limit, TooMuch
from ctnet.lock import require_there

_TEMPORARY = re.compile(r"\..+\.(\d+)(?:@(.*))?\.tmp(\.\w+)?", re.DOTALL)
_ABANDONED_S = 24 * 3600.0


POINTER = b"version https://git-lfs"
"""how a file begins that git-lfs left in place of a large one"""


def read_file(path: Path, most: Limit = FILE_BYTES) -> bytes:
    """Return the content of an ordinary file; a pipe or a device, which might never end, is not opened.

    Raises OSError, its `strerror` readable, also for a file of more bytes than `most`.
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
    """Raise StorageError, naming `path`, when the disk refuses what the block does, or a locked folder is gone."""
    require_there(path)
    try:
        yield
    except OSError as error:
        raise StorageError("cannot write the file", file=path, got=error.strerror or error) from None


def is_file(path: Path) -> bool:
    """Return whether there is such a file; False where looking fails, for lack of rights or an impossible name.

    Path.is_file raises in some of these cases.
    """
    return os.path.isfile(path)  # noqa: PTH113


def exists(path: Path) -> bool:
    """Return whether there is anything at the path, as `is_file` does."""
    return os.path.exists(path)  # noqa: PTH110


def require_writable(folder: Path) -> None:
    """Raise StorageError unless files can be written into the folder, or into the one that it would be made in."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        got = "no rights to write" if there.is_dir() else f"{there} is a file"
        raise StorageError("cannot write there", folder=folder, got=got)


LONGEST_NAME = 200
"""bytes: file systems take 255, and names get numbers and suffixes"""


def path_component(name: str) -> str:
    """Return the name if it can be that of one file or folder, whoever chose it. Raises ValueError otherwise."""
    if name in ("", ".", "..") or not name.isprintable() or any(mark in name for mark in "/\\"):
        raise ValueError(f"a name without / and \\ and of printable characters is expected, not {name[:80]!r}")
    if len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
        raise ValueError(f"a name of at most {LONGEST_NAME} bytes is expected, not {name[:80]!r}...")
    return name


def new_numbered_folder(parent: Path, name: str) -> Path:
    """Return the next free folder `parent/NAME-N`, made now, so that two commands at once never share one."""
    number, name = 1, path_component(name)
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


def sha256_of(path: Path) -> str:
    """Return the digest of a file in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the cache folder: CTNET_HOME, else `~/.cache/ctnet`."""
    return Path(os.environ.get("CTNET_HOME") or "~/.cache/ctnet").expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block ends without an error.

    The content is flushed to the disk before the old file is replaced. Raises StorageError when the disk refuses; the
    old file then stays.
    """
    temporary = temporary_beside(path)
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


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """Return the hidden name, beside `path`, of what this process writes there; `remove_leftovers` knows it."""
    return path.with_name(f".{path.name}{temporary_ending()}{suffix}")


def temporary_ending() -> str:
    """Return what the hidden names of this process's temporary files and folders end with."""
    return f".{os.getpid()}@{_host()}.tmp"


def _host() -> str:
    return socket.gethostname()[:24]


def remove_leftovers(folder: Path, pattern: str = "**/.*.tmp*") -> None:
    """Remove what killed processes were writing into the folder and its folders; living processes keep theirs.

    Whether a process lives can be seen on its own machine only: files of other machines go a day after their last
    change.
    """
    for path in list(folder.glob(pattern)):
        found = _TEMPORARY.fullmatch(path.name)
        with suppress(OSError):
            if found and _is_left(path, int(found[1]), found[2]):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_left(path: Path, process: int, host: str | None) -> bool:
    if host not in (None, _host()) or os.name != "posix":
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return process == os.getpid()  # numbers are given again, as in containers; at its start this process wrote nothing
