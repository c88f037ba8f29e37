"""Which files ctnet wrote on this machine, for formats whose files are programs rather than numbers.

A folder of the user's own in CTNET_HOME holds one empty file per digest. Who can write there has the user's rights
already, so that a secret key beside it would prove nothing more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ctnet.errors import WeightsError
from ctnet.files import cache_folder, sha256_of


def remember(files: Iterable[Path]) -> bool:
    """Note that ctnet wrote these files; return False where the user has no folder that such a note is safe in."""
    folder = _folder()
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder):
            for file in files:
                (folder / sha256_of(file)).touch(mode=0o600)
            return True
    return False


def require_trusted(file: Path, title: str, *, trust: bool) -> None:
    """Raise WeightsError unless ctnet wrote the file on this machine, or the user trusts it."""
    if trust:
        return
    with suppress(OSError):
        folder = _folder()
        if _is_private(folder) and _is_ours((folder / sha256_of(file)).lstat()):
            return
    raise WeightsError(
        f"a file of {title} is a program, and ctnet has not written this one here", file=file,
        expected=f"a file that ctnet export wrote for this user, noted in {_folder()}, and unchanged since",
        hint="export it here from its weights, or add --trust (in Python trust=True) if you know who made it",
    )  # fmt: skip


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return cache_folder() / f"written-by-{user}"


def _is_private(folder: Path) -> bool:
    """Return whether the folder belongs to the user and nobody else can write to it."""
    if not hasattr(os, "getuid"):
        return folder.is_dir()
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and _is_ours(status) and not status.st_mode & 0o022


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()
