"""Times in the forms that files have: the same moments, whatever their dress."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from raw_files import lay, prepare, read

from mllmrec.errors import DataError


def times_of(folder: Path, *texts: str, **knobs: object) -> list[float]:
    rows = "".join(f"u;i{index};{text}\n" for index, text in enumerate(texts))
    return read(lay(folder, {"t.csv": "user;item;timestamp\n" + rows}), **knobs).rows["timestamp"].to_list()


NOON = 1599999480  # date -u -d '2020-09-13 12:18:00' +%s


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["964982703", "-5"], [964982703, -5]),
        (["1.5", "2"], [1.5, 2.0]),
        (["2005-09-06", "1970-01-02"], [1125964800, 86400]),
        (["2005-09-06 00:01:00"], [1125964860]),
        (["2020-09-13T12:18:00Z", "2020-09-13 12:18"], [NOON, NOON]),
        (["2020-09-13T14:18:00+02:00", "2020-09-13T05:48:00-0630", "2020-09-13 14:18+02"], [NOON, NOON, NOON]),
        (
            ["2020-09-13 12:18:00.25", "2020-09-13 12:18:00", "2020-09-13T12:18:00,123456789Z"],
            [NOON + 0.25, NOON, NOON + 0.123456],
        ),
        (["2020-09-13 12:18:00.000", "2020-9-13 12:18:00"], [NOON, NOON]),
        (["2020/09/13", "2020/09/13 12:18:00 UTC"], [1599955200, NOON]),
        (["09/13/2020 12:18:00 PM", "9/1/2020 12:01 am"], [NOON, 1598918460]),
        (["13/09/2020 12:18:00", "01/09/2020"], [NOON, 1598918400]),
        (["01.09.2020", "02.09.2020 00:00"], [1598918400, 1599004800]),
        (["Sun Sep 13 12:18:00 +0000 2020", "Sun Sep 13 14:18:00 +0200 2020"], [NOON, NOON]),
        (["Sun, 13 Sep 2020 12:18:00 +0000"], [NOON]),
        (["Sun Sep 13 12:18:00 2020"], [NOON]),
        (["1969-12-31 23:59:59.5"], [-0.5]),
    ],
)
def test_times_are_numbers_or_dates(tmp_path: Path, texts: list[str], expected: list[float]) -> None:
    times = times_of(tmp_path, *texts)
    assert times == expected
    assert [type(time) for time in times] == [type(expected[0])] * len(texts)


def test_random_moments_agree_with_the_standard_library(tmp_path: Path) -> None:
    moments = [datetime.fromtimestamp(86400 * 365 * step + 3661 * step, UTC) for step in range(1, 60)]
    forms = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y/%m/%d %H:%M:%S")
    texts = [moment.strftime(forms[index % 3]) for index, moment in enumerate(moments)]
    assert times_of(tmp_path, *texts) == [int(moment.timestamp()) for moment in moments]


def test_a_format_of_ones_own(tmp_path: Path) -> None:
    assert times_of(tmp_path, "13.09.20 12h18", "01.09.20 00h00", time_format="%d.%m.%y %Hh%M") == [NOON, 1598918400]


@pytest.mark.parametrize(("form", "first"), [("%d/%m/%Y", 1585872000), ("%m/%d/%Y", 1583280000)])
def test_day_and_month_are_not_guessed(tmp_path: Path, form: str, first: int) -> None:
    with pytest.raises(DataError, match=r"'03/04/2020' may have the day or the month first.*--time-format"):
        times_of(tmp_path / "plain", "03/04/2020", "04/03/2020")
    assert times_of(tmp_path / "said", "03/04/2020", "04/03/2020", time_format=form)[0] == first


@pytest.mark.parametrize("bad", ["yesterday", "inf", "2005-13-01", "2005-02-30", "2005-09-06 25:00", "13/13/2020"])
def test_anything_else_in_the_time_column_is_an_error_at_its_line(tmp_path: Path, bad: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv:4: the timestamp .* is no number and no date"):
        times_of(tmp_path, "1", "2", bad)
    with pytest.raises(DataError, match=r"t\.csv:4: the timestamp"):
        times_of(tmp_path, "2005-09-06", "2005-09-07", bad)


def test_a_time_unlike_the_format_is_an_error_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: the timestamp '2020-04-03'.*not of the form %d/%m/%Y"):
        times_of(tmp_path, "03/04/2020", "2020-04-03", time_format="%d/%m/%Y")


@pytest.mark.parametrize("empty", ["", "NA", "null", "NaN", "\\N"])
def test_missing_times_are_counted_and_dropped_when_asked(tmp_path: Path, empty: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: the time is empty, as on 2 of 4 rows.*--drop-missing-times"):
        times_of(tmp_path, "1", empty, "3", empty)
    raw = lay(
        tmp_path / "raw",
        {
            "t.csv": "user,item,timestamp\n"
            + "".join(f"u,{row}\n" for row in ("a,3", f"b,{empty}", "c,1", "d,2", "e,9"))
        },
    )
    summary = prepare(tmp_path, raw, drop_missing_times=True)
    assert (tmp_path / "data" / "shop" / "test.tsv").read_text() == "u\tc d a e\n"
    assert summary.facts["import"]["left_out"] == {"no time": 1}
    assert ("rows left out: no time", "1") in summary.tables[0].rows


def test_a_column_without_any_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no time at all.*--time-column none"):
        times_of(tmp_path, "", "NA")


def test_seconds_and_milliseconds_in_one_column_become_one_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert times_of(tmp_path, "1600000000", "1600000000123", "1500000000", "0") == [
        1600000000000,
        1600000000123,
        1500000000000,
        0,
    ]
    said = capsys.readouterr().err
    assert "2 in seconds, 1 in milliseconds (the first of these on line 3). All were taken to milliseconds." in said


@pytest.mark.parametrize("texts", [("1600000000", "5"), ("1600000000123", "1600000000456"), ("20200913", "20200914")])
def test_one_unit_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: tuple[str, ...]) -> None:
    assert times_of(tmp_path, *texts) == [int(text) for text in texts]
    assert capsys.readouterr().err == ""
