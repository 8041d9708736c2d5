"""Finding images: by id over the known suffixes, inside the folder, plain files only."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from pictures import BLUE, RED, encoded, flat
from unprivileged import unprivileged

from mllmrec.vision import images
from mllmrec.vision.images import ImageError, ImageFolder

PNG = encoded(flat(RED, 8, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def reason(folder: Path, item: str) -> str:
    with pytest.raises(ImageError) as caught:
        ImageFolder(folder).read(item)
    return caught.value.reason


def test_an_image_is_found_by_its_items_id(folder: Path) -> None:
    for name in ("1.jpg", "2.jpeg", "3.png", "a.b-c_4.webp", "5.bmp", "6.GIF", "9.Tiff", "7", "8.JPG.txt"):
        (folder / name).write_bytes(name.encode())
    found = ImageFolder(folder)
    assert [found.read(item) for item in ("1", "2", "3", "a.b-c_4", "5", "6", "9")] == [
        b"1.jpg",
        b"2.jpeg",
        b"3.png",
        b"a.b-c_4.webp",
        b"5.bmp",
        b"6.GIF",
        b"9.Tiff",
    ]
    assert not any(item in found for item in ("7", "8", "8.JPG", "a", "a.b-c_4.webp", "", "../1"))


def test_of_several_images_the_first_suffix_counts(folder: Path) -> None:
    for suffix in ("bmp", "webp", "png", "jpeg"):
        (folder / f"1.{suffix}").write_bytes(suffix.encode())
        assert ImageFolder(folder).read("1") == suffix.encode()
    (folder / "1.jpg").write_bytes(b"")
    assert ImageFolder(folder).read("1") == b""


def test_a_folder_that_is_missing_holds_nothing(tmp_path: Path) -> None:
    assert "1" not in ImageFolder(tmp_path / "images")


def test_the_folder_may_be_a_link_and_links_inside_it_are_followed(tmp_path: Path, folder: Path) -> None:
    (folder / "1.png").write_bytes(PNG)
    (folder / "2.png").symlink_to("1.png")
    linked = tmp_path / "elsewhere"
    linked.symlink_to(folder)
    assert ImageFolder(linked).read("2") == PNG
    assert ImageFolder(linked).path("2") == folder / "1.png"


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "images-beside").mkdir()
    (tmp_path / "images-beside" / "3.png").write_bytes(PNG)
    (folder / "1.png").symlink_to(tmp_path / "secret.png")
    (folder / "2.png").symlink_to("../secret.png")
    (folder / "3.png").symlink_to("../images-beside/3.png")
    assert {reason(folder, item) for item in "123"} == {"outside images/"}


def test_a_link_to_nothing_or_to_itself_is_refused(folder: Path) -> None:
    (folder / "1.png").symlink_to("nothing.png")
    (folder / "2.png").symlink_to("2.png")
    assert {reason(folder, item) for item in "12"} == {"broken link"}


def test_what_is_no_plain_file_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "1.png").mkdir()
    os.mkfifo(folder / "2.png")
    assert {reason(folder, item) for item in "12"} == {"not a file"}


def test_a_file_beyond_the_bound_is_refused_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BYTES_LIMIT", 10)
    (folder / "1.png").write_bytes(b"0123456789")
    (folder / "2.png").write_bytes(b"0123456789a")
    assert ImageFolder(folder).read("1") == b"0123456789"
    assert reason(folder, "2") == "file too large"


def test_a_file_without_permission_is_unreadable(folder: Path) -> None:
    (folder / "1.png").write_bytes(PNG)
    (folder / "1.png").chmod(0)
    assert unprivileged(lambda: reason(folder, "1")) == "unreadable"


def test_a_file_that_vanishes_after_the_listing_is_a_failure(folder: Path) -> None:
    (folder / "1.png").write_bytes(PNG)
    found = ImageFolder(folder)
    (folder / "1.png").unlink()
    with pytest.raises(ImageError) as caught:
        found.read("1")
    assert caught.value.reason == "broken link"


def test_a_picture_as_an_extra_is_none_when_it_is_missing_or_bad(folder: Path) -> None:
    (folder / "1.png").write_bytes(PNG)
    (folder / "2.png").write_bytes(b"no image")
    found = ImageFolder(folder)
    picture = found.picture("1", 100)
    assert picture is not None
    assert (picture.encoded, picture.rgb.shape) == (PNG, (8, 8, 3))
    assert found.picture("2", 100) is None
    assert found.picture("3", 100) is None


def test_the_version_tells_contents_and_not_dates_or_places(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "1.png").write_bytes(PNG)
    os.utime(second / "1.png", (0, 0))
    before = ImageFolder(first).version("1")
    assert before == hashlib.sha256(PNG).hexdigest()[:16]
    assert ImageFolder(second).version("1") == before
    (second / "1.png").write_bytes(encoded(flat(BLUE, 8, 8)))
    assert ImageFolder(second).version("1") != before


def test_the_version_of_an_image_that_cannot_be_read_is_the_reason(folder: Path) -> None:
    (folder / "1.png").symlink_to("/etc/hostname")
    assert ImageFolder(folder).version("1") == "outside images/"
    (folder / "1.png").unlink()
    (folder / "1.png").mkdir()
    assert ImageFolder(folder).version("1") == "not a file"
