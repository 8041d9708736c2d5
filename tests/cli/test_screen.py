"""What a terminal shows: every figure, however narrow it is."""

from __future__ import annotations

import re
import sys

import pytest

from mllmrec.cli.screen import parts_of, show
from mllmrec.records import Summary, Table

METRICS = ("HR@1/hard19-itemknn", "HR@3/hard19-itemknn", "NDCG@3/hard19-itemknn", "NDCG@10/hard19-itemknn")
ROWS = tuple(
    (name, *(f"0.{100 * row + column}\n0.{100 * row + column}-0.999" for column in range(len(METRICS))))
    for row, name in enumerate(("popularity", "itemknn-full"), 1)
)
TABLE = Table(title="shop, 30 users", columns=("run", *METRICS), rows=ROWS, note="Means.")


@pytest.mark.parametrize(("columns", "parts"), [(40, 4), (60, 3), (80, 2), (120, 1)])
def test_a_table_that_is_wider_than_the_terminal_comes_in_parts_and_no_figure_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, parts: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    show(Summary(headline="Done.", tables=(TABLE,)))
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert len(parts_of(TABLE, columns)) == parts
    assert max(map(len, told.splitlines())) <= columns
    lines = [line for row in ROWS for cell in row for line in cell.split("\n")]
    assert [text for text in (*METRICS, *lines) if text not in told] == []
    assert told.count("itemknn-full") == parts
    assert told.count("shop, 30 users") == told.count("Means.") == 1


def test_a_note_breaks_between_words_in_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(title="t", columns=("run", "HR@1"), rows=(("markov", "0.480"),), note="interval " * 40)
    summary = Summary(headline="done", tables=(table,))
    show(summary)
    assert ("interval " * 40).strip() in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    show(summary)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("interval")]
    assert len(lines) > 5
    assert all(set(line.split()) == {"interval"} for line in lines)


def test_a_table_of_words_stays_whole() -> None:
    words = Table(title="", columns=("check", "meaning"), rows=(("a", "b " * 90),), justify="left")
    assert parts_of(words, 40) == [[0, 1]]


def test_a_long_name_wraps_and_leaves_figures_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "sft-captions-every-window-two-epochs-rank-64-with-a-name-longer-than-a-terminal-of-eighty-columns"
    figures = tuple(f"0.{digit}23\n0.{digit}00-0.{digit}50" for digit in range(1, 8))
    columns = ("run", *(f"{metric}/uni9" for metric in ("HR@1", "HR@3", "HR@5", "NDCG@3", "NDCG@5", "NDCG@10", "MRR")))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    show(Summary(headline="Done.", tables=(Table(title="t", columns=columns, rows=((name, *figures),)),)))
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, told.splitlines())) <= 80
    assert [line for cell in figures for line in cell.split("\n") if line not in told] == []
    assert [column for column in columns if column not in told] == []
    assert told.count(name[:26]) == told.count(name[26:52]) == 3
