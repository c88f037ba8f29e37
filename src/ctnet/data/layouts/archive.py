"""Data sets in zip archives, unpacked once into the cache.

Only images and annotations come out, below names that are checked one by one; nothing else in an archive is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from ctnet.data.image import IMAGE_SUFFIXES
from ctnet.errors import DataError, StorageError
from ctnet.files import cache_folder, path_component, remove_leftovers, temporary_beside, write_file
from ctnet.limits import ARCHIVE_BYTES, ARCHIVE_FILES, ARCHIVE_RATIO, TooMuch

_TEXTS = (".json", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names", ".labels")
_SUFFIXES = (*IMAGE_SUFFIXES, *_TEXTS)
_STAMP = ".unpacked"
_MARGIN = 1 << 28  # bytes that the disk keeps, and that any archive may hold


def is_archive(path: Path) -> bool:
    """Return whether the file is a zip archive; files of weights are archives too, by other names."""
    if path.suffix.lower() != ".zip":
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def unpacked(archive: Path) -> Path:
    """Return a folder in CTNET_HOME with the images and annotations of a zip archive; it is unpacked when it changes.

    Raises DataError for an archive that is damaged, encrypted, too large, or has names that lead out of it.
    """
    about = archive.resolve().stat()
    stamp = f"{about.st_size} {about.st_mtime_ns}"
    key = hashlib.sha256(str(archive.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    place = cache_folder() / "archives" / key
    if _stamp(place) == stamp:
        return place
    fresh = temporary_beside(place)  # other processes may be at it too; the first one's folder stays
    try:
        fresh.mkdir(parents=True)
        remove_leftovers(place.parent, ".*.tmp*")
        _unpack(archive, fresh)
        write_file(fresh / _STAMP, stamp.encode())
        if _stamp(place) != stamp:
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(FileExistsError):
                fresh.rename(place)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise StorageError("cannot unpack the archive", file=archive, got=error.strerror) from None
        raise DataError("the archive cannot be unpacked", file=archive, got=error) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _stamp(place: Path) -> str | None:
    try:
        return (place / _STAMP).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = [(member, _target(archive, member)) for member in opened.infolist() if _wanted(member)]
        twice = [name for name, count in Counter(name for _, name in members).items() if count > 1]
        if twice:
            raise DataError("two files in the archive have one name", file=archive, got=twice[0])
        _require_room(archive, [member for member, _ in members], folder)
        for member, name in members:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)


def _wanted(member: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts if part not in ("..", "."))
    return not member.is_dir() and kind in (0, stat.S_IFREG) and name.suffix.lower() in _SUFFIXES and not hidden


def _target(archive: Path, member: zipfile.ZipInfo) -> Path:
    """Return where a member goes, relative to the folder."""
    try:
        return Path(*(path_component(part) for part in member.filename.replace("\\", "/").split("/")))
    except ValueError as error:
        raise DataError(
            "a name in the archive cannot be that of a file", file=archive, got=error, hint="unpack it by other means"
        ) from None


def _require_room(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raise DataError for an archive that would fill the disk by what few bytes of it become."""
    total = sum(member.file_size for member in members)
    try:
        ARCHIVE_FILES.check(len(members))
        ARCHIVE_BYTES.check(total)
        ARCHIVE_RATIO.check((total - _MARGIN) // max(1, archive.stat().st_size))
    except TooMuch as error:
        raise DataError("the archive holds too much", file=archive, got=error) from None
    free = shutil.disk_usage(folder.parent).free
    if total + _MARGIN > free:
        got, expected = f"{free >> 20} MiB", f"{total + _MARGIN >> 20} MiB"
        raise StorageError("there is no room to unpack the archive", folder=folder.parent, got=got, expected=expected)
