"""Working logs: what was appended outlives its process, and what can't be read back is lost alone and told."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from mllmrec.launch import WorkShare
from mllmrec.storage.log_lines import (
    LogFile,
    header_of,
    intact,
    logged_rows,
    read_lines,
    read_records,
    record_line,
    seed_of,
    stamped,
)
from mllmrec.storage.record_log import RecordLog

HEADER = header_of({"dataset": "toy"}, {"train": "a"})


def log_of(path: Path, share: int = 0) -> RecordLog:
    """The log `path`, read."""
    log = RecordLog(path.with_name(path.name.removesuffix(".partial.jsonl")), HEADER, WorkShare(share, 2))
    log.read()
    return log


def append(log: RecordLog, **rows: Any) -> None:
    for key, row in rows.items():
        log.append(key, "row", row)
    log.close()


def row_line(key: str, row: Any) -> bytes:
    return record_line(key, {}, "row", row, seed_of(HEADER))


HEAD = stamped({"header": HEADER})
KEYS = list("abcz")


def test_a_log_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.partial.jsonl"
    append(log_of(path), a={"n": 1}, b={"n": 2})
    again = log_of(path)
    assert again.left(KEYS) == ["c", "z"]
    append(again, c={"n": 3}, a={"n": 9})
    rows = {"a": {"n": 9}, "b": {"n": 2}, "c": {"n": 3}}
    assert dict(again.rows(KEYS)) == rows
    third = log_of(path)
    assert dict(third.rows(KEYS)) == rows
    third.remove()
    assert not path.exists()


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.partial.jsonl"
    whole = HEAD + row_line("a", 1) + row_line("b", 2)
    path.write_bytes(whole + row_line("c", "caf\u00e9")[:-4])
    log = log_of(path)
    assert log.left(KEYS) == ["c", "z"]
    append(log, c=3)
    assert path.read_bytes() == whole + row_line("c", 3)


def test_a_log_that_holds_one_torn_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.partial.jsonl"
    path.write_bytes(HEAD[:9])
    log = log_of(path)
    assert log.left(KEYS) == KEYS
    append(log, a=1)
    assert path.read_bytes() == HEAD + row_line("a", 1)


def test_what_was_appended_outlives_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from mllmrec.storage.record_log import RecordLog\n"
        f"log = RecordLog(Path(sys.argv[1]), {HEADER!r})\n"
        "log.append('a', 'row', 1); log.append('b', 'row', 2); os._exit(9)"
    )
    path = tmp_path / "log.partial.jsonl"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=False).returncode == 9
    assert path.read_bytes() == HEAD + row_line("a", 1) + row_line("b", 2)


def test_the_logs_of_several_processes_are_joined_whichever_program_version_named_them(tmp_path: Path) -> None:
    for share, rows in enumerate(({"a": 1}, {"b": 2})):
        append(log_of(tmp_path / "log.partial.jsonl", share), **rows)
    (tmp_path / "log.partial.0002.jsonl").write_bytes(HEAD + row_line("c", 3))
    (tmp_path / "log.more.partial.jsonl").write_bytes(HEAD + row_line("z", 4))
    log = log_of(tmp_path / "log.partial.jsonl")
    assert dict(log.rows(KEYS)) == {"a": 1, "b": 2, "c": 3}
    assert dict(logged_rows(tmp_path / "log")) == {"a": 1, "b": 2, "c": 3}
    log.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["log.more.partial.jsonl"]


def test_a_log_that_another_process_has_joined_meanwhile_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.partial.jsonl"
    append(log_of(path), a=1)
    log = log_of(path)
    append(log_of(path, 1), b=2)
    path.unlink()
    log.read()
    assert log.left(KEYS) == ["a", "c", "z"]
    assert dict(log.rows(KEYS)) == {"b": 2}


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
    "a torn line that others follow": row_line("b", 2)[:-7] + row_line("c", 3),
    "another content": row_line("b", 2).replace(b'"b"', b'"B"'),
    "a record of other settings": record_line("b", {}, "row", 2, seed=5),
    "a record of the chunks of earlier versions": stamped({"chunk": "b", "seconds": 1.0, "rows": []}, seed_of(HEADER)),
    "no record": b'{"name":"b"}\n',
    "no JSON": b"what is this\n",
    "no UTF-8": b'{"key":"\xff"}\n',
    "an empty line": b"\n",
    "a list": b"[1]\n",
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_line_is_lost_alone_and_told(
    tmp_path: Path, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.partial.jsonl"
    path.write_bytes(HEAD + row_line("a", 1) + damaged + row_line("z", 9))
    log = log_of(path)
    assert log.left(KEYS) == ["b", "c"]
    assert capsys.readouterr().err == (
        f"{path}: 1 line can't be read back; what they held counts for nothing and is done again.\n"
    )
    append(log, b=2)
    assert dict(log_of(path).rows(KEYS)) == {"a": 1, "b": 2, "z": 9}


@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
def test_an_empty_log_and_one_of_zeros_start_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.partial.jsonl"
    path.write_bytes(content)
    log = log_of(path)
    assert log.left(KEYS) == KEYS
    append(log, a=1)
    assert path.read_bytes() == HEAD + row_line("a", 1)


def test_a_line_behind_zeros_is_read_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"ab\n" + b"\0" * 7 + b"cd\n" + b"torn")
    assert list(read_lines(path)) == [(0, b"ab\n"), (10, b"cd\n")]


def test_rows_without_their_key_are_no_records_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.jsonl"
    path.write_bytes(b'{"step":1,"loss":2}\n{"loss":3}\n\0\0' + stamped({"step": 2}) + b'{"step":3')
    assert [row["step"] for row in read_records(path, "step")] == [1, 2]
    assert f"{path}: 1 line can't be read back" in capsys.readouterr().err


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
