"""Locks on folders, each written by a single process."""

from __future__ import annotations

import errno
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ctnet.errors import ConfigError, StorageError
from ctnet.limits import parse_json

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # a link might lead to a file that is then cut
_held: dict[Path, os.stat_result] = {}  # the folders that this process alone writes


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder, and be the only process that writes into it while the block lasts.

    The operating system holds the lock (POSIX, `fcntl`), so that it ends with the process, however that ends;
    processes that it starts do not inherit it. On NFS it holds between machines where the server grants locks (version
    4, or 3 with its lock manager); where a file system grants none, nothing is locked. Raises ConfigError, which names
    the holder, when another process has the lock, and StorageError when the folder cannot be made.
    """
    path = Path(os.path.abspath(folder))  # noqa: PTH100 (symbolic links stay: files are named as the user names them)
    if path in _held:
        raise _taken(folder, _about_us())
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _take(path / LOCK, folder)
        _held[path] = path.stat()
    except OSError as error:
        raise StorageError("cannot write into the folder", folder=folder, got=error.strerror or error) from None
    try:
        yield
    finally:
        del _held[path]
        with suppress(OSError):
            if _is_at(lock, path / LOCK):  # not of a folder created later under the same name
                (path / LOCK).unlink()
        lock.close()


def require_there(path: Path) -> None:
    """Raise StorageError when `path` lies in a folder that this process has locked and that no longer exists."""
    for folder, before in _held.items() if _held else ():
        if folder in Path(os.path.abspath(path)).parents:  # noqa: PTH100
            with suppress(OSError):
                if os.path.samestat(folder.stat(), before):
                    continue
            raise StorageError(
                "the folder was deleted or moved while it was being written",
                folder=folder,
                hint="nothing was written since; to continue: ctnet train --resume FOLDER, its new place",
            )


def _take(path: Path, folder: Path) -> IO[str]:
    while True:
        lock = os.fdopen(os.open(path, _FLAGS, 0o666), "r+", encoding="utf-8", errors="replace")
        try:
            if fcntl is not None:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                lock.seek(0)
                with lock:
                    raise _taken(folder, _parsed(lock.read(10_000))) from None
        if _is_at(lock, path):
            break
        lock.close()  # its holder removed it just now
    lock.truncate(0)
    lock.write(json.dumps(_about_us()))
    lock.flush()
    return lock


def _is_at(lock: IO[str], path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    return False


def _about_us() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }


def _parsed(text: str) -> dict[str, Any]:
    try:
        about = parse_json(text)
        return {name: about.get(name) for name in _about_us()}
    except (ValueError, AttributeError):
        return {}


def _taken(folder: Path, holder: dict[str, Any]) -> ConfigError:
    hint = "wait until it ends, or end it, or name another folder"
    return ConfigError("another process writes into the folder", folder=folder, **holder, hint=hint)
