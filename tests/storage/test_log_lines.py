"""Working logs: what was appended outlives its process, and what can't be read back is lost alone and told."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mllmrec.storage.log_lines import LogFile, RecordLog, intact, read_lines, stamped


def test_a_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "new" / "log.jsonl", key="id")
    log.append([{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    log.close()
    again = RecordLog(log.path, key="id")
    assert "a" in again
    assert "c" not in again
    again.append([{"id": "c", "n": 3}, {"id": "a", "n": 9}])
    assert again.rows() == {"a": {"id": "a", "n": 9}, "b": {"id": "b", "n": 2}, "c": {"id": "c", "n": 3}}
    assert len(again) == 3
    again.close()
    third = RecordLog(log.path, key="id")
    assert third.rows() == again.rows()
    third.close(delete=True)
    assert not log.path.exists()


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":"b"}\n{"id":"caf\xc3')
    log = RecordLog(path, key="id")
    assert list(log.rows()) == ["a", "b"]
    log.append([{"id": "c"}])
    log.close()
    assert path.read_bytes() == b'{"id":"a"}\n{"id":"b"}\n' + stamped({"id": "c"})


def test_a_log_that_holds_one_torn_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"id":')
    log = RecordLog(path, key="id")
    assert len(log) == 0
    log.close()
    assert path.read_bytes() == b""


def test_what_was_appended_outlives_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from mllmrec.storage.log_lines import RecordLog\n"
        "log = RecordLog(Path(sys.argv[1]), key='id'); log.append([{'id': 'a'}, {'id': 'b'}]); os._exit(9)"
    )
    path = tmp_path / "log.jsonl"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    assert path.read_bytes() == stamped({"id": "a"}) + stamped({"id": "b"})


def test_the_checksum_is_the_crc_of_the_line_without_it() -> None:
    plain = '{"id":"caf\u00e9"}\n'.encode()
    assert stamped({"id": "caf\u00e9"}) == b'{"crc":"%08x","id":"caf\xc3\xa9"}\n' % zlib.crc32(plain)
    assert intact(stamped({"id": "caf\u00e9"})) == plain


def test_any_flipped_bit_of_a_line_is_seen() -> None:
    """Where the mark itself is hit the line is no JSON, or JSON whose content is whole."""
    line, row = stamped({"id": "a", "n": 3}), {"id": "a", "n": 3}
    for position in range(len(line) * 8):
        damaged = bytearray(line)
        damaged[position // 8] ^= 1 << position % 8
        plain = intact(bytes(damaged))
        assert plain is None or row.items() <= json.loads(plain).items()


DAMAGE = {
    "zeros": b"\0" * 40 + b"\n",
    "a torn line that others follow": stamped({"id": "b"})[:-7] + stamped({"id": "c"}),
    "another content": stamped({"id": "b"}).replace(b'"b"', b'"B"'),
    "no record of this log": b'{"name":"b"}\n',
    "no JSON": b"what is this\n",
    "no UTF-8": b'{"id":"\xff"}\n',
    "an empty line": b"\n",
    "a list": b"[1]\n",
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_line_is_lost_alone_and_told(
    tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(stamped({"id": "a"}) + damaged + stamped({"id": "z"}))
    log = RecordLog(path, key="id")
    assert list(log.rows()) == ["a", "z"]
    assert capsys.readouterr().err == (
        f"{path}: 1 line can't be read back; what they held counts for nothing and is done again.\n"
    )
    log.append([{"id": "b"}])
    log.close()
    with closing(RecordLog(path, key="id")) as again:
        assert list(again.rows()) == ["a", "z", "b"]


@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
def test_an_empty_log_and_one_of_zeros_start_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    log = RecordLog(path, key="id")
    assert len(log) == 0
    log.append([{"id": "a"}])
    log.close()
    assert path.read_bytes() == stamped({"id": "a"})


def test_a_line_behind_zeros_is_read_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"ab\n" + b"\0" * 7 + b"cd\n" + b"torn")
    assert list(read_lines(path)) == [(0, b"ab\n"), (10, b"cd\n")]


class Narrow(io.FileIO):
    """A file that takes five bytes at a time, and no more than `room` in all."""

    room = 10_000

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = super().write(bytes(data[: min(5, self.room)]))
        self.room -= taken
        return taken


def narrow_log(path: Path) -> tuple[LogFile, Narrow]:
    log, file = LogFile(path), Narrow(path, "ab")
    log._file.close()
    log._file = file
    return log, file


def test_a_short_write_is_gone_on_with(tmp_path: Path) -> None:
    log, _ = narrow_log(tmp_path / "log.jsonl")
    log.append(stamped({"id": "a" * 100}))
    log.append(stamped({"id": "b"}))
    log.close()
    assert log.path.read_bytes() == stamped({"id": "a" * 100}) + stamped({"id": "b"})


def test_a_line_that_the_disk_has_no_room_for_leaves_nothing_of_itself(tmp_path: Path) -> None:
    log, file = narrow_log(tmp_path / "log.jsonl")
    log.append(stamped({"id": "a"}))
    file.room = 12
    with pytest.raises(OSError, match="No space left") as error:
        log.append(stamped({"id": "b" * 100}))
    assert error.value.filename == str(log.path)
    assert log.path.read_bytes() == stamped({"id": "a"})
    file.room = 1000
    log.append(stamped({"id": "c"}))
    log.close()
    assert log.path.read_bytes() == stamped({"id": "a"}) + stamped({"id": "c"})
