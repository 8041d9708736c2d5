"""Unpacking archives that can't be trusted: every entry is checked before the first byte is written.

Refused are entries that would land outside the folder (absolute paths, `..`, drive letters), links and devices,
encrypted entries, two entries of one name, archives that unpack to more than the limit or the disk holds, and archives
whose headers would fill the memory. The checksum of a compressed tar archive is compared before anything is written.

Tar archives are read by `TarReader`. Python's tarfile reads a header of any size into memory, keeps every header, takes
a damaged one for the end, and never reaches the checksum behind a compressed archive. Here headers have a limit, none
is kept, the archive has to end with its end mark, and the compressed stream is read to its last byte, where gzip, bzip2
and xz compare their checksums.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from mllmrec.errors import DataError
from mllmrec.progress import progress

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_ENTRIES, MAX_NAMES, LONGEST_NAME = 1_000_000, 1 << 26, 4096
CORRUPT = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
)
Member = zipfile.ZipInfo | tarfile.TarInfo
MAX_HEADER = 1 << 20
"""Bytes of all headers in front of one entry; names and attributes need a few hundred."""
USUAL_HEADER, MAX_UNUSUAL = 1 << 12, 1 << 26
"""Bytes of a usual header, and of what all headers may have beyond that together."""
MAX_GLOBAL_ATTRIBUTES = 100
BLOCK, CHUNK = tarfile.BLOCKSIZE, 1 << 20
_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class Entry(NamedTuple):
    """One regular file of an archive; `path` is relative and clean."""

    path: str
    num_bytes: int


def is_archive(name: str) -> bool:
    """Whether `unpack` takes a file of this name."""
    return name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def unpack(archive: Path, folder: Path, limit_bytes: int) -> list[Path]:
    """Write the files of a zip or tar archive into `folder` and return their paths.

    One folder that holds everything is left out, so that `ml-1m.zip` with `ml-1m/ratings.dat` gives `ratings.dat`.
    Raises DataError, having written nothing, when an entry is refused.
    """
    with _reading(archive):
        entries = _checked(archive, limit_bytes)
        top = _top_folder(entries)
        total = sum(entry.num_bytes for entry in entries)
        _require_room(archive, folder, total)
        paths = []
        with progress(f"unpacking {archive.name}", total) as advance, _open(archive) as opened:
            for entry, source in _contents(archive, opened):
                path = folder / entry.path.removeprefix(top)
                path.parent.mkdir(parents=True, exist_ok=True)
                with source() as content, path.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                paths.append(path)
                advance(entry.num_bytes)
    return paths


class TarReader:
    """The entries of an open tar archive, one at a time; DataError for headers past the limits."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name, self._headers = name, _LimitedFile(name, file)
        self._unusual = 0
        self._tar = _TypedTarFile(fileobj=cast(IO[bytes], self._headers))

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._next()) is not None:
            yield member

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of an entry, to be read before the next one is asked for."""
        content = self._tar.extractfile(member)
        assert content is not None, "a regular file of a tar archive can be read"
        return content

    def finish(self, limit_bytes: int) -> None:
        """Read the rest. Raises tarfile.ReadError without an end mark, DataError for more than `limit_bytes`."""
        self._headers.seek(self._tar.offset)
        mark = self._headers.read(BLOCK)
        if len(mark) < BLOCK or mark.strip(b"\0"):
            raise tarfile.ReadError("it ends in the middle, or a header within is damaged")
        num_bytes = 0
        while chunk := self._headers.read(CHUNK):
            num_bytes += len(chunk)
            if num_bytes > limit_bytes:
                raise DataError(
                    f"{self._name} goes on for more than {limit_bytes / 1e9:g} GB behind its last file. Nothing was "
                    "unpacked. Don't trust this archive; get it from its owner."
                )

    def _next(self) -> tarfile.TarInfo | None:
        self._headers.allow(MAX_HEADER)
        member = self._tar.next()
        self._unusual += max(0, self._headers.num_bytes - USUAL_HEADER)
        self._tar.members.clear()
        if self._unusual > MAX_UNUSUAL or len(self._tar.pax_headers) > MAX_GLOBAL_ATTRIBUTES:
            raise self._headers.refusal()
        self._headers.allow(None)
        return member


@contextmanager
def open_tar(archive: Path) -> Iterator[TarReader]:
    """A tar archive, plain or compressed, which its first bytes decide."""
    with archive.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if opener is None:
            yield TarReader(archive.name, raw)
            return
        with cast(IO[bytes], opener(raw)) as unpacked:
            yield TarReader(archive.name, unpacked)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn damage in the archive into a DataError."""
    try:
        yield
    except DataError:
        raise
    except (*CORRUPT, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; bzip2 reports damage without a number
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive.name} can't be unpacked: {reason}. Expected a whole zip or tar archive. Download it again."
        ) from error


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | TarReader]:
    if archive.name.lower().endswith(ZIP_SUFFIXES):
        with zipfile.ZipFile(archive) as opened_zip:
            yield opened_zip
    else:
        with open_tar(archive) as opened_tar:
            yield opened_tar


def _contents(archive: Path, opened: zipfile.ZipFile | TarReader) -> Iterator[tuple[Entry, Callable[[], IO[bytes]]]]:
    """The files of an archive in order, each with a function that opens it. Raises DataError at one that is refused."""
    openers: Iterable[tuple[Member, Callable[[], IO[bytes]]]]
    if isinstance(opened, zipfile.ZipFile):
        openers = ((member, partial(opened.open, member)) for member in opened.infolist())
    else:
        openers = ((member, partial(opened.open, member)) for member in opened)
    for member, opener in openers:
        entry = _entry(archive, member)
        if entry is not None and not entry.path.startswith("__MACOSX/"):
            yield entry, opener


def _checked(archive: Path, limit_bytes: int) -> list[Entry]:
    """All files of the archive; the running total stops a bomb before it has been read through."""
    entries, files, folders = list[Entry](), set[str](), set[str]()
    total = names = 0
    with _open(archive) as opened:
        for entry, _ in _contents(archive, opened):
            parents = _parents(entry.path)
            if entry.path in files or entry.path in folders or not files.isdisjoint(parents):
                raise DataError(f"{archive.name} holds two entries for {entry.path}. Nothing was unpacked.")
            total += entry.num_bytes
            names += sum(len(path) for path in (entry.path, *parents) if path not in folders)
            files.add(entry.path)
            folders.update(parents)
            entries.append(entry)
            if total > limit_bytes or len(entries) > MAX_ENTRIES or names > MAX_NAMES:
                raise DataError(
                    f"{archive.name} unpacks to more than {limit_bytes / 1e9:g} GB or {MAX_ENTRIES:,} files, or the "
                    f"names of its files to more than {MAX_NAMES >> 20} MB. Nothing was unpacked. If that is as it "
                    "should be, raise --max-gb."
                )
        if isinstance(opened, TarReader):
            opened.finish(limit_bytes)
    if not entries:
        raise DataError(f"{archive.name} holds no files. Expected the files of a data set.")
    return entries


def _entry(archive: Path, member: zipfile.ZipInfo | tarfile.TarInfo) -> Entry | None:
    """The member as an entry, None for a folder. Raises DataError when it is refused."""
    if isinstance(member, zipfile.ZipInfo):
        name, num_bytes, folder = member.filename, member.file_size, member.is_dir()
        kind = stat.S_IFMT(member.external_attr >> 16)
        regular = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not member.flag_bits & 0x1
    else:
        name, num_bytes, folder = member.name, member.size, member.isdir()
        regular = member.isfile() or folder
    if len(name) > LONGEST_NAME:
        raise DataError(
            f"{archive.name} holds an entry with a name of {len(name):,} characters, {name[:40]!r} and so on. Expected "
            f"at most {LONGEST_NAME:,}. Nothing was unpacked."
        )
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
    if isinstance(member, zipfile.ZipInfo) and member.compress_type not in ZIP_METHODS:
        raise DataError(
            f"{archive.name} holds the entry {name!r}, which is compressed by method {member.compress_type}. Expected "
            "stored or deflated entries, since others can't be unpacked in little memory. Nothing was unpacked; "
            "pack it anew with `zip`."
        )
    return None if folder or not path.parts else Entry(path=str(path), num_bytes=num_bytes)


def _top_folder(entries: list[Entry]) -> str:
    """The one folder that holds all entries, with its slash; empty where there is none."""
    tops = {entry.path.partition("/")[:2] for entry in entries}
    top, slash = next(iter(tops))
    return top + slash if len(tops) == 1 and slash else ""


def _parents(path: str) -> list[str]:
    """`a/b/c` -> a, a/b"""
    return [path[:at] for at, char in enumerate(path) if char == "/"]


def _require_room(archive: Path, folder: Path, total: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise DataError(
            f"{archive.name} unpacks to {total / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free. Free some "
            "space, or choose a folder on another disk with --raw."
        )


class _TypedTarFile(tarfile.TarFile):
    members: list[tarfile.TarInfo]
    """The headers read so far, which tarfile doesn't document."""


class _LimitedFile:
    """A file that refuses to be read past a number of bytes while such a limit is set."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name, self._file = name, file
        self.allow(MAX_HEADER)

    def allow(self, num_bytes: int | None) -> None:
        """Set the number of bytes that may be read from here on; None for any."""
        self._limit, self.num_bytes = num_bytes, 0

    def read(self, num_bytes: int = -1) -> bytes:
        wanted = num_bytes if num_bytes >= 0 else MAX_HEADER + 1
        if self._limit is not None and self.num_bytes + wanted > self._limit:
            raise self.refusal()
        content = self._file.read(num_bytes)
        self.num_bytes += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def refusal(self) -> DataError:
        return DataError(
            f"{self._name} has headers of more than {MAX_HEADER >> 20} MB in front of a file, or of more than "
            f"{MAX_UNUSUAL >> 20} MB together. Names and attributes of files need a few hundred bytes each. Nothing "
            "was unpacked. Don't trust this archive; get it from its owner."
        )
