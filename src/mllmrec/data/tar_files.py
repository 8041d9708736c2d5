"""Reading a stranger's tar archive in little memory and to its very end.

Python's tarfile reads a header of any size into memory, keeps every header, takes a damaged one for the end, and never
reaches the checksum behind a compressed archive. Here headers have a limit, none is kept, what stands at the end has to
be its mark, and the compressed stream is read to its last byte, where gzip, bzip2 and xz compare their checksums.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from mllmrec.errors import DataError

MAX_HEADER = 1 << 20
"""Bytes of all headers in front of one entry; names and attributes need a few hundred."""
USUAL_HEADER, MAX_UNUSUAL = 1 << 12, 1 << 26
"""Headers longer than the usual may hold so many bytes together."""
MAX_GLOBAL_ATTRIBUTES = 100
BLOCK, CHUNK = tarfile.BLOCKSIZE, 1 << 20

_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}


class _Archive(tarfile.TarFile):
    members: list[tarfile.TarInfo]
    """The headers read so far, which tarfile doesn't document."""


class TarReader:
    """The entries of an open tar archive, one at a time; DataError for headers past the limits."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name, self._headers = name, _LimitedFile(name, file)
        self._unusual = 0
        self._tar = _Archive(fileobj=cast(IO[bytes], self._headers))

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._next()) is not None:
            yield member

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of an entry, to be read before the next one is asked for."""
        content = self._tar.extractfile(member)
        assert content is not None, "a regular file of a tar archive can be read"
        return content

    def finish(self, limit_bytes: int) -> None:
        """Read what is left; tarfile.ReadError where no end mark stands, DataError past `limit_bytes`."""
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


class _LimitedFile:
    """A file that refuses to be read past a number of bytes, as long as there is one."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name, self._file = name, file
        self.allow(MAX_HEADER)

    def allow(self, num_bytes: int | None) -> None:
        """So many bytes from here on; None for any number."""
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


@contextmanager
def open_tar(archive: Path) -> Iterator[TarReader]:
    """A tar archive, plain or compressed, as its first bytes tell."""
    with archive.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), None)
        if opener is None:
            yield TarReader(archive.name, raw)
            return
        with cast(IO[bytes], opener(raw)) as unpacked:
            yield TarReader(archive.name, unpacked)
