"""Unpacking what a stranger packed: every entry is checked before the first byte is written.

Refused are entries that would land outside the folder (absolute paths, `..`, drive letters), links and devices,
encrypted entries, two entries of one name, and archives that unpack to more than the limit or the disk holds.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from mllmrec.errors import DataError
from mllmrec.progress import progress

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_ENTRIES = 1_000_000
CORRUPT = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One regular file of an archive; `path` is relative and clean."""

    path: PurePosixPath
    num_bytes: int
    member: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(name: str) -> bool:
    return name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def unpack(archive: Path, folder: Path, limit_bytes: int) -> list[Path]:
    """Write the files of a zip or tar archive into `folder` and return their paths.

    One folder that holds everything is left out, so that `ml-1m.zip` with `ml-1m/ratings.dat` gives `ratings.dat`.
    Raises DataError, having written nothing, when an entry is refused.
    """
    with _reading(archive), _open(archive) as opened:
        entries = _inside_top_folder(_checked(archive, opened, limit_bytes))
        total = sum(entry.num_bytes for entry in entries)
        _require_room(archive, folder, total)
        with progress(f"unpacking {archive.name}", total) as advance:
            for entry in entries:
                _write(opened, entry, folder)
                advance(entry.num_bytes)
    return [folder / entry.path for entry in entries]


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Tell damage in the archive as a DataError."""
    try:
        yield
    except DataError:
        raise
    except CORRUPT as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive.name} can't be unpacked: {reason}. Expected a whole zip or tar archive. Download it again."
        ) from error


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if archive.name.lower().endswith(ZIP_SUFFIXES):
        with zipfile.ZipFile(archive) as opened_zip:
            yield opened_zip
    else:
        with tarfile.open(archive, "r:*") as opened_tar:
            yield opened_tar


def _checked(archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, limit_bytes: int) -> list[Entry]:
    """All files of the archive; the running total stops a bomb before it has been read through."""
    entries: list[Entry] = []
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    total = 0
    for member in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        entry = _entry(archive, member)
        if entry is None or entry.path.parts[0] == "__MACOSX":
            continue
        if entry.path in files or entry.path in folders or files.intersection(entry.path.parents):
            raise DataError(f"{archive.name} holds two entries for {entry.path}. Nothing was unpacked.")
        files.add(entry.path)
        folders.update(entry.path.parents)
        entries.append(entry)
        total += entry.num_bytes
        if total > limit_bytes or len(entries) > MAX_ENTRIES:
            raise DataError(
                f"{archive.name} unpacks to more than {limit_bytes / 1e9:g} GB or {MAX_ENTRIES:,} files. Nothing was "
                "unpacked. If that is as it should be, raise --max-gb."
            )
    if not entries:
        raise DataError(f"{archive.name} holds no files. Expected the files of a data set.")
    return entries


def _entry(archive: Path, member: zipfile.ZipInfo | tarfile.TarInfo) -> Entry | None:
    """The member as an entry, None for a folder; a DataError when it is refused."""
    if isinstance(member, zipfile.ZipInfo):
        name, num_bytes, folder = member.filename, member.file_size, member.is_dir()
        kind = stat.S_IFMT(member.external_attr >> 16)
        regular = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not member.flag_bits & 0x1
    else:
        name, num_bytes, folder = member.name, member.size, member.isdir()
        regular = member.isfile() or folder
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise DataError(
            f"{archive.name} holds the entry {name!r}, which would be written outside the folder. Nothing was "
            "unpacked. Don't trust this archive; get it from its owner."
        )
    if not regular:
        raise DataError(
            f"{archive.name} holds the entry {name!r}, which is a link, a device or encrypted. Expected plain files. "
            "Nothing was unpacked."
        )
    return None if folder or not path.parts else Entry(path=path, num_bytes=num_bytes, member=member)


def _inside_top_folder(entries: list[Entry]) -> list[Entry]:
    """The same entries without the one folder that holds them all, where there is one."""
    tops = {entry.path.parts[0] for entry in entries}
    if len(tops) > 1 or any(len(entry.path.parts) == 1 for entry in entries):
        return entries
    return [
        Entry(path=PurePosixPath(*entry.path.parts[1:]), num_bytes=entry.num_bytes, member=entry.member)
        for entry in entries
    ]


def _require_room(archive: Path, folder: Path, total: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DataError(
            f"{archive.name} unpacks to {total / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free. Free some "
            "space, or choose a folder on another disk with --raw."
        )


def _write(opened: zipfile.ZipFile | tarfile.TarFile, entry: Entry, folder: Path) -> None:
    target = folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    source: IO[bytes] | None
    if isinstance(opened, zipfile.ZipFile):
        assert isinstance(entry.member, zipfile.ZipInfo)
        source = opened.open(entry.member)
    else:
        assert isinstance(entry.member, tarfile.TarInfo)
        source = opened.extractfile(entry.member)
    assert source is not None, "a regular file of a tar archive can be read"
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
