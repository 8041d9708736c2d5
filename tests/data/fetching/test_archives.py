"""Archives made to hurt, and honest ones."""

from __future__ import annotations

import gzip
import io
import random
import re
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.data.fetching.archives import is_archive, unpack
from mllmrec.errors import DataError

LIMIT = 1_000_000


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_one_top_folder_is_left_out(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"ml/u.data": b"1", "ml/deep/u.item": b"2", "__MACOSX/x": b"junk"})
    paths = unpack(archive, tmp_path / "out", LIMIT)
    assert contents(tmp_path / "out") == {"deep/u.item": b"2", "u.data": b"1"}
    assert sorted(path.name for path in paths) == ["u.data", "u.item"]


def test_several_folders_stay_as_they_are(tmp_path: Path) -> None:
    unpack(zip_of(tmp_path / "a.zip", {"a/x": b"1", "b/x": b"2"}), tmp_path / "out", LIMIT)
    assert contents(tmp_path / "out") == {"a/x": b"1", "b/x": b"2"}


def test_a_tar_archive_gives_the_same_files(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("ml")
    folder.type = tarfile.DIRTYPE
    archive = tar_of(
        tmp_path / "a.tar.gz", (folder, b""), (tarfile.TarInfo("ml/x"), b"1"), (tarfile.TarInfo("ml/d/y"), b"22")
    )
    unpack(archive, tmp_path / "out", LIMIT)
    assert contents(tmp_path / "out") == {"d/y": b"22", "x": b"1"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "c:evil", "..\\evil", "a/..", "../"])
def test_an_entry_that_leaves_the_folder_is_refused_and_nothing_written(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("good", b"1")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        opened.writestr(info, b"")
    with pytest.raises(DataError, match="outside the folder"):
        unpack(archive, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


@given(st.text(alphabet="ab./\\:C", min_size=1, max_size=12))
def test_no_name_whatever_escapes(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    outer = tmp_path_factory.mktemp("outer")
    with zipfile.ZipFile(outer / "a.zip", "w") as opened:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        opened.writestr(info, b"x")
    try:
        paths = unpack(outer / "a.zip", outer / "deep" / "out", LIMIT)
    except DataError:
        paths = []
    inside = (outer / "deep" / "out").resolve()
    assert not [path for path in paths if not path.resolve().is_relative_to(inside)]
    written = [path for path in outer.rglob("*") if path.is_file() and path.name != "a.zip"]
    assert sorted(written) == sorted(paths)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/hostname"
    archive = tar_of(tmp_path / "a.tgz", (tarfile.TarInfo("good"), b"1"), (member, b""))
    with pytest.raises(DataError, match="'link', which is a link, a device or encrypted"):
        unpack(archive, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


def test_a_link_of_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(DataError, match="is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip", {"x": b"1"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(DataError, match="encrypted"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {f"x{n}": bytes(400_000) for n in range(3)})
    assert archive.stat().st_size < 5_000
    with pytest.raises(DataError, match=r"more than 0\.001 GB.*--max-gb"):
        unpack(archive, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_two_entries_for_one_place_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", *((tarfile.TarInfo(name), b"1") for name in names))
    with pytest.raises(DataError, match="two entries"):
        unpack(archive, tmp_path / "out", LIMIT)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_is_no_archive_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>Please log in</html>")
    with pytest.raises(DataError, match=f"{name} can't be unpacked: .*Download it again"):
        unpack(tmp_path / name, tmp_path / "out", LIMIT)


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_damaged_archive_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    data = bytes(range(256)) * 400
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:  # stored, so that a changed byte breaks the checksum alone
            archive.writestr("x", data)
        broken = path.read_bytes().replace(data[:64], bytes(64), 1)
    else:
        tar_of(path, (tarfile.TarInfo("x"), data))
        broken = path.read_bytes()[:-40]
    path.write_bytes(broken)
    with pytest.raises(DataError, match="can't be unpacked"):
        unpack(path, tmp_path / "out", LIMIT)


def test_an_empty_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        unpack(zip_of(tmp_path / "a.zip", {"folder/": b""}), tmp_path / "out", LIMIT)


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="--raw"):
        unpack(zip_of(tmp_path / "a.zip", {"x": bytes(11)}), tmp_path / "out", LIMIT)


def test_archives_are_told_by_their_suffix() -> None:
    assert [name for name in ("a.zip", "A.ZIP", "a.tgz", "a.tar.xz", "a.gz", "a.csv") if is_archive(name)] == [
        "a.zip",
        "A.ZIP",
        "a.tgz",
        "a.tar.xz",
    ]


def outcome(archive: Path, folder: Path) -> dict[str, bytes] | str:
    """What an archive unpacks to, or why it is refused."""
    try:
        unpack(archive, folder, LIMIT)
    except DataError as error:
        return str(error)
    return contents(folder)


def test_a_changed_bit_of_a_compressed_archive_never_unpacks_to_other_content(tmp_path: Path) -> None:
    """The checksum stands behind the end of the tar archive, where tarfile doesn't read."""
    files = {f"{name}.dat": random.Random(name).randbytes(400) for name in range(3)}
    path = tar_of(tmp_path / "a.tar.gz", *((tarfile.TarInfo(name), data) for name, data in files.items()))
    whole = path.read_bytes()
    assert outcome(path, tmp_path / "whole") == files
    refused = 0
    for number, at in enumerate(range(10, len(whole), len(whole) // 60)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << number % 8)]) + whole[at + 1 :])
        found = outcome(path, tmp_path / f"{number}")
        assert found == files or "can't be unpacked" in found
        assert found == files or not (tmp_path / f"{number}").exists()
        refused += found != files
    assert refused > 55


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_checksum_that_doesnt_fit_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.tar.{suffix}"
    with tarfile.open(path, f"w:{suffix}") as tar:  # type: ignore[call-overload]
        tar.addfile(tarfile.TarInfo("x"))
    broken = bytearray(path.read_bytes())
    broken[-8 if suffix == "gz" else -3] ^= 1
    path.write_bytes(bytes(broken))
    assert "can't be unpacked" in str(outcome(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["header", "cut"])
def test_an_archive_without_its_end_mark_is_told(tmp_path: Path, damage: str) -> None:
    """tarfile takes a damaged header for the end, and the files behind it would be missing."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x", "y"):
            archive.addfile(tarfile.TarInfo(name))
    whole = bytearray((tmp_path / "a.tar").read_bytes())
    whole[512] ^= 1
    (tmp_path / "a.tar").write_bytes(whole if damage == "header" else whole[:512])
    assert "ends in the middle" in str(outcome(tmp_path / "a.tar", tmp_path / "out"))


def gzipped(path: Path, *blocks: bytes) -> Path:
    with gzip.open(path, "wb", 1) as file:
        for block in blocks:
            file.write(block)
    return path


def header(name: str, kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


HUGE = 64 << 20
MEGABYTE = bytes(1 << 20)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_bomb_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    bomb = gzipped(tmp_path / "a.tar.gz", header("h", kind, HUGE), *[MEGABYTE] * 64, header("x", b"0", 0), bytes(1024))
    assert bomb.stat().st_size < 400_000
    tracemalloc.start()
    message = outcome(bomb, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "headers of more than 1 MB" in message
    assert peak < 8 << 20


def test_many_headers_in_front_of_one_file_are_refused(tmp_path: Path) -> None:
    attribute = b"30 comment=" + b"x" * 18 + b"\n"
    one = header("h", tarfile.XHDTYPE, len(attribute)) + attribute.ljust(512, b"\0")
    chain = gzipped(tmp_path / "a.tar.gz", one * 2000, header("x", b"0", 0), bytes(1024))
    assert re.search("headers of more than|recursion", str(outcome(chain, tmp_path / "out")))


def test_what_stands_behind_the_end_mark_counts_too(tmp_path: Path) -> None:
    tail = gzipped(tmp_path / "a.tar.gz", header("x", b"0", 0), bytes(1024), MEGABYTE, MEGABYTE)
    assert "goes on for more than 0.001 GB behind its last file" in outcome(tail, tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_cant_be_unpacked_in_little_memory_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("x", b"1")
    assert "Expected stored or deflated entries" in outcome(tmp_path / "a.zip", tmp_path / "out")


def test_a_name_without_end_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", (tarfile.TarInfo("a/" * 5000 + "x"), b""))
    assert "a name of 10,001 characters" in outcome(path, tmp_path / "out")
