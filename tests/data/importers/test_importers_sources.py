"""Each source on small made-up files in its own format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from raw_files import lay, pairs, read

from mllmrec.data.importers.splitting import clean
from mllmrec.errors import DataError, SettingsError
from mllmrec.settings.base import validated
from mllmrec.settings.data import PrepareSettings

LATIN_TITLE = "Crème brûlée, a film (1999)"


def item_line(item: str, title: str, flags: dict[int, int]) -> bytes:
    flag_fields = "|".join(str(flags.get(index, 0)) for index in range(19))
    return f"{item}|{title}|01-Jan-1999||http://example.org|{flag_fields}\n".encode("latin-1")


def test_movielens_100k(tmp_path: Path) -> None:
    genres = "".join(f"Genre{index}|{index}\n" for index in range(19)) + "\n"
    items = item_line("5", LATIN_TITLE, {1: 1, 18: 1}) + item_line("6", "None", {})
    lay(tmp_path, {"u.data": "1\t6\t3\t20\n1\t5\t4\t10\n", "u.item": items, "u.genre": genres})
    imported = read(tmp_path, source="movielens-100k")
    assert imported.rows.rows() == [("1", "6", 20), ("1", "5", 10)]
    assert imported.catalogue["5"].title == LATIN_TITLE
    assert imported.catalogue["5"].attributes == (("genres", "Genre1|Genre18"), ("released", "01-Jan-1999"))
    assert imported.catalogue["6"].title == "None"


def test_movielens_latest_with_crlf_and_links(tmp_path: Path) -> None:
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\r\n1,10,4.0,100\r\n",
        "movies.csv": 'movieId,title,genres\r\n10,"Lake, The (2001)",Drama\r\n11,Hill (2002),(no genres listed)\r\n',
        "links.csv": "movieId,imdbId,tmdbId\r\n10,0114709,862\r\n11,0114710,\r\n",
    }
    imported = read(lay(tmp_path, files), source="movielens-latest")
    assert imported.rows.rows() == [("1", "10", 100)]
    assert imported.catalogue["10"].title == "Lake, The (2001)"
    assert imported.catalogue["10"].attributes == (("genres", "Drama"), ("imdb_id", "0114709"), ("tmdb_id", "862"))


def test_movielens_1m_from_ratings(tmp_path: Path) -> None:
    movies = f"7::{LATIN_TITLE}::Comedy|Drama\n".encode("latin-1")
    imported = read(
        lay(tmp_path, {"ml-1m/ratings.dat": "1::7::5::99\n", "ml-1m/movies.dat": movies}), source="movielens-1m"
    )
    assert imported.timed
    assert imported.rows.rows() == [("1", "7", 99)]
    assert imported.catalogue["7"].title == LATIN_TITLE


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_movielens_titles_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    movies = f"7::{LATIN_TITLE}::Comedy\n".encode(encoding)
    imported = read(lay(tmp_path, {"ratings.dat": "1::7::3.5::99\n", "movies.dat": movies}), source="movielens-1m")
    assert imported.catalogue["7"].title == LATIN_TITLE


SEQUENCES = {
    "sas_to_original_users.txt": "1 50\n2 40\n",
    "sas_to_original_items.txt": "1 700\n2 600\n",
    "movies.dat": "600::Six::Drama\n700::Seven::Drama\n1::One, whose id is a renumbered one::Drama\n",
}


@pytest.mark.parametrize("packed", [False, True])
def test_movielens_1m_from_renumbered_text_comes_back_in_original_ids(tmp_path: Path, packed: bool) -> None:
    text = b"1 2\n1 1\n2 1\n"
    name, content = ("ml-1m.txt.gz", gzip.compress(text)) if packed else ("ml-1m.txt", text)
    imported = read(lay(tmp_path, {**SEQUENCES, name: content}), source="movielens-1m")
    assert not imported.timed
    assert imported.rows.select("user", "item").rows() == [("50", "600"), ("50", "700"), ("40", "700")]
    assert imported.rows["timestamp"].to_list() == [0, 1, 2]


def test_a_renumbered_id_without_an_original_is_an_error_by_line(tmp_path: Path) -> None:
    lay(tmp_path, {**SEQUENCES, "ml-1m.txt": "1 2\n1 3\n"})
    with pytest.raises(DataError, match=r"ml-1m\.txt:2: item '3' is not in .*sas_to_original_items\.txt"):
        read(tmp_path, source="movielens-1m")


def test_renumbered_text_without_its_maps_is_not_taken(tmp_path: Path) -> None:
    lay(tmp_path, {"ml-1m.txt": "1 2\n", "movies.dat": SEQUENCES["movies.dat"]})
    with pytest.raises(DataError, match=r"sas_to_original_users\.txt.*found ml-1m\.txt, movies\.dat"):
        read(tmp_path, source="movielens-1m")


MICRO_TITLES = 'video_id, title\n1, soup, with noodles, hot\n2,"a ""quoted"", one"\n3, NA\n3, again\n'


def test_microlens_titles_are_cut_at_the_first_comma(tmp_path: Path) -> None:
    lay(tmp_path, {"M_pairs.csv": "user,item,timestamp\n9,1,1600000000123\n", "M_title_en.csv": MICRO_TITLES})
    imported = read(tmp_path, source="microlens")
    assert [item.title for item in imported.catalogue.values()] == ["soup, with noodles, hot", 'a "quoted", one', "NA"]
    assert imported.catalogue.num_duplicates == 1
    assert imported.rows.rows() == [("9", "1", 1600000000123)]


def test_microlens_pairs_without_a_header(tmp_path: Path) -> None:
    lay(tmp_path, {"M_pairs.csv": "9,1,160\n9,2,150\n", "M_titles.csv": MICRO_TITLES})
    assert read(tmp_path, source="microlens").rows.rows() == [("9", "1", 160), ("9", "2", 150)]


def test_microlens_sequences_are_already_in_order(tmp_path: Path) -> None:
    lay(tmp_path, {"M_pairs.tsv": "9\t3 1 3\n8\t2\n", "M_titles.csv": MICRO_TITLES})
    imported = read(tmp_path, source="microlens")
    assert not imported.timed
    assert imported.rows.select("user", "item").rows() == [("9", "3"), ("9", "1"), ("9", "3"), ("8", "2")]


def test_a_microlens_title_without_a_comma_is_an_error_by_line(tmp_path: Path) -> None:
    lay(tmp_path, {"M_pairs.tsv": "9\t3 1\n", "M_titles.csv": "item,title\n1,a\nno title here\n"})
    with pytest.raises(DataError, match=r"M_titles\.csv:3: no comma in 'no title here'"):
        read(tmp_path, source="microlens")


def test_two_files_for_one_role_are_not_guessed_between(tmp_path: Path) -> None:
    lay(tmp_path, {"M_pairs.csv": "9,1,160\n", "A_titles.csv": MICRO_TITLES, "B_titles.csv": MICRO_TITLES})
    with pytest.raises(DataError, match=r"2 files that could be the titles: A_titles\.csv, B_titles\.csv"):
        read(tmp_path, source="microlens")


NETFLIX_MOVIES = "1,2003,Crème, again, and again\n2,NULL,Plain\n".encode("latin-1")


@pytest.mark.parametrize(
    "names", [("combined_data_1.txt", "combined_data_2.txt"), ("training_set/mv_1.txt", "training_set/mv_2.txt")]
)
def test_netflix_ratings_stand_under_their_movie(tmp_path: Path, names: tuple[str, str]) -> None:
    ratings = {names[0]: "1:\n500,3,2005-09-06\n501,5,2005-09-07\n", names[1]: "2:\n500,4,1999-12-31\n"}
    imported = read(lay(tmp_path, {**ratings, "movie_titles.csv": NETFLIX_MOVIES}), source="netflix-prize")
    expected = [("500", "1", 1125964800), ("501", "1", 1126051200), ("500", "2", 946598400)]
    assert imported.rows.rows() == expected
    assert imported.catalogue["1"].title == "Crème, again, and again"
    assert [item.attributes for item in imported.catalogue.values()] == [(("year", "2003"),), (("year", ""),)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("500,3,2005-09-06\n", r"combined_data_1\.txt:1: '500,3,2005-09-06' comes before any movie"),
        ("1:\n500,3,2005-09-06\n501,5\n", r"combined_data_1\.txt:3: expected `user,rating,date` and found '501,5'"),
        ("1:\n500,3,2005-09-06\n501,3,soon\n", r"combined_data_1\.txt:3: the timestamp 'soon'"),
    ],
)
def test_bad_netflix_lines_are_errors(tmp_path: Path, content: str, message: str) -> None:
    lay(tmp_path, {"combined_data_1.txt": content, "movie_titles.csv": NETFLIX_MOVIES})
    with pytest.raises(DataError, match=message):
        read(tmp_path, source="netflix-prize")


META = [
    {"asin": "B001", "title": "Soap &amp; brush", "brand": "Foam", "main_cat": "Beauty"},
    {"asin": "B002", "title": "None", "brand": None},
    {"asin": "B001", "title": "a second row"},
    {"asin": "B999", "title": "bought by nobody"},
]
META_LINES = "".join(json.dumps(row) + "\n" for row in META)


@pytest.mark.parametrize(
    "ratings",
    [
        "AX1,B001,5.0,100\nAX1,B002,1.0,200\n",
        "B001,AX1,5.0,100\nB002,AX1,1.0,200\n",
        "user_id,parent_asin,rating,timestamp\nAX1,B001,5.0,100\nAX1,B002,1.0,200\n",
    ],
    ids=["user first", "item first", "header"],
)
def test_amazon_ratings_in_the_layouts_of_its_releases(tmp_path: Path, ratings: str) -> None:
    imported = read(lay(tmp_path, {"ratings_Beauty.csv": ratings, "meta_Beauty.jsonl": META_LINES}), source="amazon")
    assert imported.rows.rows() == [("AX1", "B001", 100), ("AX1", "B002", 200)]
    assert [item.title for item in imported.catalogue.values()] == ["Soap & brush", "None"]
    assert imported.catalogue["B001"].attributes == (("brand", "Foam"), ("category", "Beauty"))
    assert imported.catalogue.num_duplicates == 1


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Soap &amp;amp; &quot;brush&quot;", 'Soap & "brush"'),
        ("<b>Soap</b> for <i>you</i><br/>", "Soap for you"),
        ('<span id="productTitle">\n Soap\n</span> var aPageStart = (new Date()).getTime(); P.when("A")', "Soap"),
        ("<script>if (a < b) { run(); }</script>Soap", "Soap"),
        ("&lt;span&gt;Soap&lt;/span&gt;", "Soap"),
        ('Soap <span class="cut', "Soap"),
        ("C++ <vector>, age < 5 > 3, I <3 soap & co", "C++ <vector>, age < 5 > 3, I <3 soap & co"),
        ("The function (of soap) in window frames; var. red", "The function (of soap) in window frames; var. red"),
        ("var aPageStart = (new Date()).getTime();", ""),
    ],
)
def test_amazon_titles_are_plain_text(tmp_path: Path, raw: str, title: str) -> None:
    meta = json.dumps({"asin": "B001", "title": raw}) + "\n"
    imported = read(lay(tmp_path, {"ratings.csv": "AX1,B001,5,1\n", "meta.jsonl": meta}), source="amazon")
    assert imported.catalogue["B001"].title == title


def test_amazon_titles_of_script_alone_are_counted_and_another_row_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "var aPageStart = (new Date()).getTime();"
    rows = [("B001", script), ("B002", script), ("B002", "Brush"), ("B003", ""), ("B003", "Comb"), ("B003", "Other")]
    meta = "".join(json.dumps({"asin": item, "title": title}) + "\n" for item, title in rows)
    ratings = "".join(f"AX1,{item},5,1\n" for item in ("B001", "B002", "B003"))
    imported = read(lay(tmp_path, {"ratings.csv": ratings, "meta.jsonl": meta}), source="amazon")
    titles = {item: imported.catalogue[item].title for item in imported.catalogue}
    assert titles == {"B001": "", "B002": "Brush", "B003": "Comb"}
    assert "1 products are titled by markup or script alone (such as B001)" in capsys.readouterr().err


def test_amazon_metadata_as_python_literals_and_gzipped(tmp_path: Path) -> None:
    meta = gzip.compress(b"{'asin': 'B001', 'title': \"Soap's brush\"}\n")
    imported = read(lay(tmp_path, {"ratings.csv": "AX1,B001,5,1\n", "meta.json.gz": meta}), source="amazon")
    assert imported.catalogue["B001"].title == "Soap's brush"


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ('{"asin": "B001"}\n{"asin": \n', r"meta\.jsonl:2: not a JSON object"),
        ('["B001"]\n', r"meta\.jsonl: entry 1 of the array is no object"),
        ('{"title": "no id"}\n', r"meta\.jsonl:1: the product id is None"),
        (b'{"asin": "B001", "title": "caf\xe9"}\n', r"meta\.jsonl:1: byte 0xe9 is not UTF-8"),
    ],
)
def test_bad_amazon_metadata_is_an_error_by_line(tmp_path: Path, meta: str | bytes, message: str) -> None:
    lay(tmp_path, {"ratings.csv": "AX1,B001,5,1\n", "meta.jsonl": meta})
    with pytest.raises(DataError, match=message):
        read(tmp_path, source="amazon")


REVIEWS = [
    {"reviewerID": "AX1", "asin": "B001", "unixReviewTime": 100, "reviewText": 'a "quoted"\nword'},
    {"reviewerID": "AX1", "asin": "B002", "unixReviewTime": 200, "overall": 1.0},
    {"reviewerID": None, "asin": "B002", "unixReviewTime": 300},
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Beauty_5.json", {}),
        ("Beauty.jsonl", {"reviewerID": "user_id", "asin": "parent_asin", "unixReviewTime": "timestamp"}),
    ],
)
def test_amazon_reviews_as_json_lines(tmp_path: Path, packed: bool, name: str, names: dict[str, str]) -> None:
    rows = [{names.get(key, key): value for key, value in row.items()} for row in REVIEWS]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {f"{name}.gz": gzip.compress(text)} if packed else {name: text}
    imported = read(lay(tmp_path, {**files, "meta_Beauty.json": META_LINES}), source="amazon")
    assert imported.rows.rows() == [("AX1", "B001", 100), ("AX1", "B002", 200), ("", "B002", 300)]
    assert imported.catalogue["B001"].title == "Soap & brush"


def test_amazon_splits_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "user_id,parent_asin,rating,timestamp\n"
    files = {
        "B.train.csv": f"{head}AX1,B001,5.0,1\n",
        "B.valid.csv": f"{head}AX1,B002,5.0,2\n",
        "B.test.csv": f"{head}AX1,B001,5.0,3\n",
    }
    imported = read(lay(tmp_path, {**files, "meta_B.jsonl": META_LINES}), source="amazon")
    assert imported.rows.rows() == [("AX1", "B001", 1), ("AX1", "B002", 2), ("AX1", "B001", 3)]
    assert "B.train.csv, B.valid.csv, B.test.csv are joined" in capsys.readouterr().err


def test_amazon_reviews_without_a_known_field_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, {"r.jsonl": '{"who": "AX1", "asin": "B001"}\n', "meta.jsonl": META_LINES})
    with pytest.raises(DataError, match=r"r\.jsonl:1: a review of who, asin\. Expected a user"):
        read(tmp_path, source="amazon")


def test_amazon_ratings_of_an_unknown_shape_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, {"ratings.csv": "who,what\nAX1,B001\n", "meta.jsonl": META_LINES})
    with pytest.raises(DataError, match=r"ratings\.csv:1: found who, what"):
        read(tmp_path, source="amazon")


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::"])
def test_pairs_guess_the_delimiter_from_the_header(tmp_path: Path, separator: str) -> None:
    header, row = separator.join(("who", "what", "at")), separator.join(("u1", "a", "5"))
    raw = lay(tmp_path, {"table.txt": f"{header}\n{row}\n"}) / "table.txt"
    imported = read(raw, user_column="who", item_column="what", time_column="at")
    assert imported.rows.rows() == [("u1", "a", 5)]


def test_pairs_take_a_given_delimiter(tmp_path: Path) -> None:
    raw = lay(tmp_path, {"t.txt": "user item timestamp\nu1 a 5\n"})
    assert read(raw / "t.txt", delimiter="space").rows.rows() == [("u1", "a", 5)]


def test_pairs_by_column_number_have_no_header(tmp_path: Path) -> None:
    raw = lay(tmp_path, {"t.csv": "5,a,u1\n6,b,u1\n"})
    imported = read(raw, user_column="3", item_column="2", time_column="1")
    assert imported.rows.rows() == [("u1", "a", 5), ("u1", "b", 6)]


def test_pairs_without_times_keep_the_order_of_rows(tmp_path: Path) -> None:
    imported = read(lay(tmp_path, {"t.csv": "user,item\nu1,b\nu1,a\n"}), time_column="none")
    assert not imported.timed
    assert imported.rows["item"].to_list() == ["b", "a"]


def test_pairs_hold_their_titles_themselves(tmp_path: Path) -> None:
    rows = 'user,item,timestamp,title\nu1,a,1,"First, of a"\nu2,a,2,Second of a\nu2,b,3,NA\n'
    imported = read(lay(tmp_path, {"t.csv": rows}))
    assert {item: imported.catalogue[item].title for item in imported.catalogue} == {"a": "First, of a", "b": "NA"}


def test_the_first_title_that_isnt_empty_counts(tmp_path: Path) -> None:
    rows = "user,item,timestamp,title\nu1,a,1,\nu2,a,2,Second\nu3,a,3,Third\n"
    assert read(lay(tmp_path, {"t.csv": rows})).catalogue["a"].title == "Second"


def test_pairs_with_a_titles_file_keep_its_other_columns(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", {"shop_pairs.csv": pairs(("u1", "a", 1))})
    titles = lay(tmp_path, {"names.tsv": "name\titem\tcolour\nLamp\ta\tred\nOther\ta\tblue\n"}) / "names.tsv"
    imported = read(raw, titles=str(titles), title_column="name")
    assert imported.catalogue["a"].title == "Lamp"
    assert imported.catalogue["a"].attributes == (("colour", "red"),)
    assert imported.catalogue.num_duplicates == 1


def test_the_item_column_of_a_titles_file_may_have_another_name(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", {"t.csv": pairs(("u1", "a", 1))})
    titles = str(lay(tmp_path, {"names.tsv": "id\tname\na\tLamp\n"}) / "names.tsv")
    with pytest.raises(DataError, match=r"no column named item.*--titles-item-column"):
        read(raw, titles=titles, title_column="name")
    imported = read(raw, titles=titles, title_column="name", titles_item_column="id")
    assert imported.catalogue["a"].title == "Lamp"


@pytest.mark.parametrize("between", [" ", "\t", ",", ", ", "|", ";"])
def test_sequences_are_a_line_a_user(tmp_path: Path, between: str) -> None:
    text = "".join(between.join(words) + "\n" for words in (["u1", "a", "b", "a"], ["u2", "c"], ["u3"] + ["d"] * 2))
    raw = lay(
        tmp_path, {"Beauty.txt": text, "Beauty_sample.txt": "u1 x y\n", "t.csv": "item,title,kind\na,A thing,x\n"}
    )
    found = read(raw, source="sequences", titles=str(raw / "t.csv"))
    assert found.rows.rows() == [
        ("u1", "a", 0), ("u1", "b", 1), ("u1", "a", 2), ("u2", "c", 3), ("u3", "d", 4), ("u3", "d", 5)
    ]  # fmt: skip
    assert (found.catalogue["a"].title, found.catalogue["a"].attributes) == ("A thing", (("kind", "x"),))
    assert not found.timed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 5\n1 6\n2 7\n", r":2: user 1 has a line already, line 1"),
        ("1 5\n2 6\n", "has one item in each line"),
        ("1 5 6\n2\n", r":2: one word alone: '2'"),
        ("user_id items\n1 5 6\n", r":1: 'user_id items' looks like a header"),
        ("1 5 6\n2\t[7, 8]\n", r":2: the items are quoted or in brackets: '\[7, 8\]'"),
        ('1,"5 6"\n', r":1: the items are quoted or in brackets"),
        ("1 5 6\n2\t7 8\t900 901\n", r":2: the items are separated in several ways"),
        ("1 5 6\r2 7 8\r", r"its lines end in carriage returns alone"),
    ],
)
def test_bad_sequences_are_errors_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(lay(tmp_path, {"s.txt": text}), source="sequences")


def test_one_column_is_not_read_as_two(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"name user, item, item\. Expected different columns"):
        read(lay(tmp_path, {"t.csv": pairs(("u1", "a", 1))}), time_column="item")


def test_a_titles_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--titles .*nowhere\.csv is no file"):
        read(lay(tmp_path, {"t.csv": pairs(("u1", "a", 1))}), titles="nowhere.csv")


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("movielens-100k", ("u.data", "u.item")),
        ("movielens-latest", ("ratings.csv", "movies.csv")),
        ("movielens-1m", ("ratings.dat", "movies.dat", "ml-1m.txt / ml-1m.txt.gz")),
        ("microlens", ("*pairs.csv / *pairs.tsv", "*title_en.csv")),
        ("netflix-prize", ("combined_data_*.txt", "movie_titles.csv")),
        ("amazon", ("ratings*.csv", "meta*.jsonl")),
        ("pairs", ("*pairs.csv", "*.tsv")),
    ],
)
def test_missing_files_are_told_with_what_is_there(tmp_path: Path, source: str, files: tuple[str, ...]) -> None:
    lay(tmp_path, {"notes.txt": "nothing to see", "covers/1.jpg": b""})
    with pytest.raises(DataError, match=r"found covers/, notes\.txt\. Point --raw") as caught:
        read(tmp_path, source=source)
    assert all(name in str(caught.value) for name in files)
    assert "\n" not in str(caught.value)


def test_a_raw_folder_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist\. Expected the folder of the unpacked files"):
        read(tmp_path / "gone", source="movielens-100k")
    archive = lay(tmp_path, {"ml-100k.zip": b"PK"}) / "ml-100k.zip"
    with pytest.raises(DataError, match=r"ml-100k\.zip is a file\. Expected the folder of the unpacked files"):
        read(archive, source="movielens-100k")


def test_settings_tell_what_does_not_go_together() -> None:
    base = {"raw": "x", "dataset": "d"}
    with pytest.raises(SettingsError, match="titles can only be set with source pairs, not with amazon"):
        validated(PrepareSettings, {**base, "source": "amazon", "titles": "t.csv"}, "prepare")
    with pytest.raises(SettingsError, match=r"valid_cut_share = 0\.95 must be below cut_share = 0\.9"):
        validated(
            PrepareSettings, {**base, "source": "pairs", "split": "global-time", "valid_cut_share": 0.95}, "prepare"
        )


RATED = (
    "user,item,timestamp,title,rating,genre,mood\n"
    "a,1,1,Lake,5,drama,calm\n"
    "a,2,2,Hill,3.5,comedy,calm\n"
    "b,1,1,Lake, 4 ,drama,wild\n"
    "b,2,2,Hill,,comedy,wild\n"
    "c,1,1,Lake,2,,wild\n"
)


def test_rows_that_are_rated_low_are_left_out_and_counted(tmp_path: Path) -> None:
    raw = lay(tmp_path, {"pairs.csv": RATED})
    imported = read(raw, rating_column="rating", min_rating=3.5)
    assert imported.rows.rows() == [("a", "1", 1), ("a", "2", 2), ("b", "1", 1)]
    assert imported.left_out == {"no rating": 1, "rated below 3.5": 1}
    rows, facts = clean(imported)
    assert (rows.height, facts["rows_read"], facts["left_out"]) == (3, 5, imported.left_out)
    assert read(raw).left_out == {}


@pytest.mark.parametrize(
    ("content", "knobs", "error", "message"),
    [
        (RATED.replace("3.5", "good"), {}, DataError, r"pairs.csv:3: 'good' in the column rating is no rating"),
        (RATED.replace("3.5", "inf"), {}, DataError, r"pairs.csv:3: 'inf' in the column rating is no rating"),
        (RATED, {"min_rating": 6}, DataError, r"no row is rated 6 or more; the highest rating .* is 5\.0"),
        (RATED, {"rating_column": "stars"}, DataError, r"no column named stars"),
        (RATED, {"rating_column": ""}, SettingsError, r"rating_column and min_rating belong together"),
        (RATED, {"min_rating": None}, SettingsError, r"rating_column and min_rating belong together"),
    ],
)
def test_ratings_that_make_no_sense_are_refused(
    tmp_path: Path, content: str, knobs: dict[str, Any], error: type[Exception], message: str
) -> None:
    raw = lay(tmp_path, {"pairs.csv": content})
    values = {
        "source": "pairs",
        "dataset": "shop",
        "raw": str(raw),
        "rating_column": "rating",
        "min_rating": 3.5,
        **knobs,
    }
    with pytest.raises(error, match=message):
        read(raw, **validated(PrepareSettings, values, "prepare").model_dump(exclude={"raw"}))


def test_columns_of_items_in_pairs_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mood` is the user's, `rating` the row's; a genre that one row lacks is that of the others."""
    imported = read(lay(tmp_path, {"pairs.csv": RATED.replace("c,1,1", "c,3,1")}))
    assert imported.catalogue["1"].attributes == (("genre", "drama"),)
    assert imported.catalogue["2"].attributes == (("genre", "comedy"),)
    assert imported.catalogue["3"].attributes == (("genre", ""),)
    told = capsys.readouterr().err
    assert "genre: kept as attributes of items" in told
    assert "rating, mood: left out" in told
    with_rating = read(tmp_path, rating_column="rating", min_rating=1)
    assert with_rating.catalogue["1"].attributes == (("genre", "drama"),)
