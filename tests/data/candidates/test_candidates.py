"""Frozen candidate lists: fair, outside what a user knows, and hanging on nothing but seed, split and example."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import titles_csv, tsv, write_dataset

from mllmrec import ArtifactError, DataError, Workspace
from mllmrec.data.candidates.drawing import (
    candidate_rows,
    draw_version,
    freeze,
    item_counts,
    questions,
    read_candidates,
    sliced,
    with_candidates,
)
from mllmrec.data.candidates.negatives import Draw, FirstSampler, PoolSampler
from mllmrec.data.candidates.stage import run
from mllmrec.data.sequences import Catalogue, Interactions, Line, is_held_out
from mllmrec.records import Item, RankingExample, Summary, example_id
from mllmrec.settings.data import CandidatesSettings
from mllmrec.storage.manifests import Manifest, manifest_path, marker_of
from mllmrec.storage.workspace import sha256, write_jsonl, write_text

POOL = [f"i{number}" for number in range(60)]
FIRST_DIGESTS = [
    ("uniform", 9, "c04184b55d78286b"),
    ("uniform", 40, "0b93c36188b7db2d"),
    ("popularity", 9, "15fff34851ec3833"),
    ("popularity", 50, "d6976adfd1dd5a7e"),
]


def lines_of(*rows: tuple[str, str]) -> list[Line]:
    return [Line(user_id=user, items=tuple(items.split()), line_index=at) for at, (user, items) in enumerate(rows)]


def interactions_of(
    test: Iterable[Line], train: Iterable[Line] = (), valid: Iterable[Line] = (), pool: Sequence[str] = POOL
) -> Interactions:
    catalogue = Catalogue(Item(item_id=item, title=f"Thing {item}") for item in pool)
    return Interactions(train=[*train], valid=[*valid], test=[*test], catalogue=catalogue, held_out=False)


def question(user: str = "u", history: Sequence[str] = ("i0",), target: str = "i1") -> RankingExample:
    return RankingExample(
        example_id=example_id(user, target, history),
        user_id=user,
        history=tuple(history),
        candidates=(),
        target_id=target,
        split="test",
    )


def test_questions_are_the_windows_of_the_lines() -> None:
    lines = lines_of(("1", "a b c d"), ("2", "e f"), ("3", "x y z"))
    examples, counts = questions(lines, "train", 3, "all")
    assert [(e.user_id, e.history, e.target_id) for e in examples] == [
        ("1", ("a", "b"), "c"),
        ("1", ("b", "c"), "d"),
        ("3", ("x", "y"), "z"),
    ]
    assert counts == {"lines": 3, "too_short": 1, "duplicates": 0}
    assert {e.split for e in examples} == {"train"}
    assert [e.target_id for e in questions(lines, "train", 3)[0]] == ["d", "z"]
    assert examples[0].example_id == example_id("1", "c", ("a", "b"))


def test_an_example_that_occurs_twice_counts_once_at_its_first_place() -> None:
    lines = lines_of(("1", "a b"), ("2", "a b"), ("1", "a b"), ("1", "b a"))
    examples, counts = questions(lines, "test", 2)
    assert [(e.user_id, e.target_id) for e in examples] == [("1", "b"), ("2", "b"), ("1", "a")]
    assert counts["duplicates"] == 1


def test_a_window_longer_than_every_line_is_told() -> None:
    with pytest.raises(DataError) as error:
        questions(lines_of(("1", "a b c"), ("2", "a b")), "valid", 10)
    assert str(error.value) == (
        "No line of the valid split has 10 items (the longest has 3). Expected at least --min-inter items a line; "
        "lower --min-inter to 3 or less."
    )


@given(data=st.data(), num_neg=st.integers(1, 12), seed=st.integers(0, 5), popular=st.booleans(), first=st.booleans())
@settings(deadline=None, max_examples=250)
def test_a_list_holds_its_target_once_and_negatives_the_user_does_not_know(
    data: st.DataObject, num_neg: int, seed: int, popular: bool, first: bool
) -> None:
    pool = POOL[: data.draw(st.sampled_from([14, 20, 60]))]
    user = data.draw(st.lists(st.sampled_from([*pool, "untitled"]), min_size=2, max_size=8))
    known = frozenset(data.draw(st.lists(st.sampled_from(pool), max_size=6)))
    outside = set(pool) - known - set(user)
    counts = item_counts(lines_of(("p", " ".join(pool + pool[::3])))) if popular else None
    sampler = FirstSampler(pool, counts) if first else PoolSampler(pool, counts)
    example = question(history=user[:-1], target=user[-1])
    if len(outside) < num_neg:
        with pytest.raises(DataError, match=f"only {len(outside)} of {len(pool)} items"):
            with_candidates(example, sampler, known, num_neg, seed, "test")
        return
    drawn = with_candidates(example, sampler, known, num_neg, seed, "test")
    assert len(drawn.candidates) == len(set(drawn.candidates)) == num_neg + 1
    assert drawn.candidates.count(user[-1]) == 1
    assert set(drawn.candidates) - {user[-1]} <= outside
    assert (drawn.example_id, drawn.history, drawn.target_id) == (example.example_id, tuple(user[:-1]), user[-1])
    assert drawn == with_candidates(example, sampler, known, num_neg, seed, "test")


ROWS = [(str(user), [POOL[(user * 7 + step * 11) % 60] for step in range(5)]) for user in range(12)]


@given(order=st.permutations(range(12)), kept=st.integers(1, 12), negatives=st.sampled_from(["uniform", "popularity"]))
@settings(deadline=None, max_examples=40)
def test_a_list_hangs_neither_on_the_order_of_rows_nor_on_other_rows(
    order: list[int], kept: int, negatives: str
) -> None:
    train = lines_of(("x", " ".join(POOL)))

    def drawn(rows: Iterable[tuple[str, list[str]]]) -> dict[str, RankingExample]:
        test = lines_of(*((user, " ".join(items)) for user, items in rows))
        frozen, _ = freeze(interactions_of(test, train), "test", window=4, num_neg=9, seed=42, negatives=negatives)
        return {example.example_id: example for example in frozen}

    whole, part = drawn(ROWS), drawn(ROWS[row] for row in order[:kept])
    assert part == {key: whole[key] for key in part}
    assert len(part) == kept


def test_seeds_purposes_and_examples_draw_apart() -> None:
    sampler = PoolSampler(POOL)
    drawn = {
        (user, met, seed, purpose): with_candidates(question(user, [met]), sampler, frozenset(), 9, seed, purpose)
        for user, met, seed, purpose in itertools.product(
            "uv", ("i2", "i3"), (1, 2), ("sft/epoch-0", "sft/epoch-1", "grpo/epoch-0")
        )
    }
    assert len({example.candidates for example in drawn.values()}) == len(drawn) == 24


def test_the_target_stands_at_every_place_equally_often() -> None:
    sampler = PoolSampler(POOL)
    places = Counter(
        with_candidates(question(str(user)), sampler, frozenset(), 9, 42, "test").candidates.index("i1")
        for user in range(4_000)
    )
    # Each place is binomial with mean 400 and standard deviation 19.
    assert set(places) == set(range(10))
    assert all(abs(count - 400) < 95 for count in places.values())


def chosen(sampler: PoolSampler, count: int, forbidden: frozenset[str], draws: int) -> Iterator[list[str]]:
    return (sampler.negatives(count, forbidden, Draw(1, "test", str(number))) for number in range(draws))


@pytest.mark.parametrize("pool", [POOL, POOL[:12]], ids=["large pool", "small pool"])
def test_uniform_negatives_are_drawn_equally_often(pool: list[str]) -> None:
    draws = 6_000
    drawn = chosen(PoolSampler(pool), 2, frozenset({"i0", "i1"}), draws)
    counts = Counter(itertools.chain.from_iterable(drawn))
    mean = 2 * draws / (len(pool) - 2)
    assert set(counts) == set(pool[2:])
    assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())


def test_popular_negatives_are_drawn_in_proportion_to_their_count() -> None:
    counted = item_counts(lines_of(("1", "a a a a"), ("2", "b b c x x x")))
    sampler = PoolSampler(["never", "a", "b", "c", "x"], counted)
    counts = Counter(drawn[0] for drawn in chosen(sampler, 1, frozenset({"x"}), 7_000))
    # a : b : c = 4 : 2 : 1, each binomial with a standard deviation of at most 42.
    assert set(counts) == {"a", "b", "c"}
    assert abs(counts["a"] - 4_000) < 210
    assert abs(counts["b"] - 2_000) < 210
    assert abs(counts["c"] - 1_000) < 210


def test_items_that_never_occur_are_drawn_only_where_the_others_are_too_few() -> None:
    sampler = PoolSampler(["a", "b", "n1", "n2", "n3"], item_counts(lines_of(("1", "a b"))))
    assert sorted(sampler.negatives(2, frozenset(), Draw(1, "test", "u"))) == ["a", "b"]
    counts = Counter(itertools.chain.from_iterable(chosen(sampler, 2, frozenset({"a"}), 900)))
    assert counts.pop("b") == 900
    # The place left goes to n1, n2 and n3 alike: binomial, mean 300, standard deviation 14.
    assert set(counts) == {"n1", "n2", "n3"}
    assert all(abs(count - 300) < 71 for count in counts.values())
    with pytest.raises(DataError, match="6 negatives were asked for, but only 5 of 5 items"):
        sampler.negatives(6, frozenset(), Draw(1, "test", "u"))


def test_rare_items_beside_a_very_frequent_one_are_drawn_in_proportion_and_at_once() -> None:
    """Rejection alone would need about a million draws for each list here."""
    sampler = PoolSampler(["a", "b", "c"], {"a": 3_000_000, "b": 2, "c": 1})
    drawn = list(chosen(sampler, 2, frozenset(), 1_500))
    assert all(each[0] == "a" for each in drawn)
    # b : c = 2 : 1, binomial with mean 1,000 and standard deviation 18.
    assert abs(sum(each[1] == "b" for each in drawn) - 1_000) < 92


# ---- two versions of the draw


@given(order=st.permutations(POOL), negatives=st.sampled_from(["uniform", "popularity"]), num_neg=st.integers(1, 50))
@settings(deadline=None, max_examples=40)
def test_the_order_of_titles_changes_no_list(order: list[str], negatives: str, num_neg: int) -> None:
    test = lines_of(*((user, " ".join(items)) for user, items in ROWS))
    train = lines_of(("x", " ".join(POOL[:7] + POOL[:3])))
    knobs = {"window": 4, "num_neg": num_neg, "seed": 42, "negatives": negatives}
    one, _ = freeze(interactions_of(test, train), "test", **knobs)
    two, _ = freeze(interactions_of(test, train, pool=order), "test", **knobs)
    assert one == two


def test_an_item_without_a_title_is_a_negative_as_well(tmp_path: Path) -> None:
    """Were it a target only, an item that the titles file lacks would be the answer by construction."""
    rows = [*ROWS, ("ghosts", ["g1", "g2", "g3", "g4", "g5"])]
    workspace = write_dataset(tmp_path, train=tsv(ROWS), test=tsv(rows), titles=titles_csv(POOL))
    drawn = read_candidates(draw(workspace, num_neg=40).artifact)
    others = Counter(item for each in drawn for item in each.candidates if item != each.target_id)
    assert all(others[ghost] >= 3 for ghost in ("g1", "g2", "g3", "g4", "g5"))
    trained = read_candidates(draw(workspace, num_neg=40, split="train").artifact)
    assert not any(set(each.candidates) & {"g1", "g2"} for each in trained)


def test_a_file_of_the_first_version_stays_what_it_is(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    path = draw(workspace).artifact
    assert draw_version(Manifest.read(path)) == 2
    manifest = json.loads(manifest_path(path).read_text())
    del manifest["details"]["draws"]
    manifest_path(path).write_text(json.dumps(manifest))
    assert draw_version(Manifest.read(path)) == 1
    assert "nothing to do" in draw(workspace).headline
    assert draw_version(Manifest.read(draw(workspace, overwrite=True).artifact)) == 2


def test_the_first_version_draws_what_it_drew() -> None:
    """Digests of lists that version 0.1 froze."""
    test = lines_of(*((user, " ".join(items)) for user, items in ROWS))
    train = lines_of(("x", " ".join(POOL + POOL[:20])))
    for negatives, num_neg, expected in FIRST_DIGESTS:
        frozen, _ = freeze(
            interactions_of(test, train), "test", window=4, num_neg=num_neg, seed=42, negatives=negatives, version=1
        )
        lists = json.dumps([each.candidates for each in frozen])
        assert hashlib.sha256(lists.encode()).hexdigest()[:16] == expected, (negatives, num_neg)


def test_popularity_is_counted_without_validation_targets(tmp_path: Path) -> None:
    user = next(user for user in map(str, range(1000)) if is_held_out(user))
    other = next(user for user in map(str, range(1000)) if not is_held_out(user))
    rows = [(user, ["a", "b", "secret"]), (other, ["a", "b"])]
    workspace = write_dataset(tmp_path, train=tsv(rows), test="7\tc d\n")
    interactions = Interactions.load(workspace, "shop")
    examples, counts = freeze(interactions, "test", window=2, num_neg=2, seed=1, negatives="popularity")
    assert {*examples[0].candidates} == {"a", "b", "d"}
    assert counts["with_unseen"] == 0
    examples, counts = freeze(interactions, "test", window=2, num_neg=3, seed=1, negatives="popularity")
    assert {*examples[0].candidates} == {"a", "b", "d", "secret"}
    assert counts["with_unseen"] == 1


def test_a_slice_is_drawn_by_user_and_holds_the_smaller_one() -> None:
    examples = [question(str(number % 60), [f"i{number}"]) for number in range(90)]
    drawn = sliced(examples, 20, 42)
    assert len({example.example_id for example in drawn}) == 20
    assert drawn != examples[:20]
    assert sliced(examples[::-1], 20, 42) == drawn
    assert sliced(examples, 12, 42) == drawn[:12]
    assert sliced(drawn[5:], 3, 42) == drawn[5:8]
    assert {each.example_id for each in sliced(examples, 20, 43)} != {each.example_id for each in drawn}
    # A user's examples stand together, so that a slice splits one user at most.
    users = [example.user_id for example in sliced(examples, 90, 42)]
    assert sum(one != other for one, other in itertools.pairwise(users)) == 59
    assert sliced(examples, None, 42) == examples
    assert sliced(examples, 1_000, 42) == sliced(examples, 90, 42)


def test_a_slice_is_a_fair_draw() -> None:
    examples = [question(str(user)) for user in range(200)]
    counts = Counter(example.user_id for seed in range(400) for example in sliced(examples, 50, seed))
    # Each user is binomial with mean 100 and standard deviation 8.7.
    assert len(counts) == 200
    assert all(abs(count - 100) < 44 for count in counts.values())


def test_negatives_lie_outside_what_is_known_at_their_split() -> None:
    train, valid = lines_of(("1", "i0 i1 i2"), ("1", "i9 i8")), lines_of(("1", "i0 i1 i2 i3"))
    test, pool = lines_of(("1", "i1 i2 i3 i4")), POOL[:12]
    interactions = interactions_of(test, train, valid, pool)

    def negatives(split: str, num_neg: int) -> set[str]:
        (*_, example), _ = freeze(interactions, split, window=3, num_neg=num_neg, seed=1)
        return set(example.candidates) - {example.target_id}

    assert negatives("train", 7) == {"i3", "i4", "i5", "i6", "i7", "i10", "i11"}
    assert negatives("valid", 6) == {"i4", "i5", "i6", "i7", "i10", "i11"}
    assert negatives("test", 5) == {"i5", "i6", "i7", "i10", "i11"}
    with pytest.raises(DataError, match=r"only 5 of 12 items.*Lower --num-neg to 5 or less"):
        negatives("test", 6)


def test_the_window_of_a_user_is_forbidden_even_where_nothing_is_known() -> None:
    drawn = with_candidates(question(history=POOL[:5], target="i5"), PoolSampler(POOL[:8]), frozenset(), 2, 1, "x")
    assert set(drawn.candidates) == {"i5", "i6", "i7"}


# ---- files


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    frozen, _ = freeze(
        interactions_of(lines_of(*((u, " ".join(i)) for u, i in ROWS))), "test", window=5, num_neg=3, seed=1
    )
    write_jsonl(tmp_path / "c.jsonl", candidate_rows(frozen))
    assert read_candidates(tmp_path / "c.jsonl") == frozen


GOOD = {"example_id": "e", "user_id": "u", "history": ["a"], "candidates": ["b"], "target_id": "b", "split": "test"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"candidates": None}, "candidates"),
        ({"candidates": "b c"}, "candidates"),
        ({"candidates": [1, 2]}, "candidates"),
        ({"history": {"a": 1}}, "history"),
        ({"user_id": 7, "target_id": 3}, "user_id, target_id"),
    ],
)
def test_a_line_of_another_kind_is_named(tmp_path: Path, change: dict[str, object], named: str) -> None:
    write_jsonl(tmp_path / "c.jsonl", [GOOD, GOOD | change])
    with pytest.raises(DataError, match=rf"c\.jsonl:2: {named} missing or of another kind"):
        read_candidates(tmp_path / "c.jsonl")


def test_a_line_that_lacks_something_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{name: GOOD[name] for name in GOOD if name not in ("split", "history")}])
    with pytest.raises(DataError, match=r"c\.jsonl:1: split, history missing .*`mllmrec candidates`"):
        read_candidates(tmp_path / "c.jsonl")


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    write_text(tmp_path / "c.jsonl", "")
    with pytest.raises(DataError, match=r"c\.jsonl holds no examples"):
        read_candidates(tmp_path / "c.jsonl")


# ---- the stage


def shop(root: Path, rows: Sequence[tuple[str, list[str]]] = ROWS) -> Workspace:
    return write_dataset(root, train=tsv(rows), test=tsv(rows), titles=titles_csv(POOL))


def draw(workspace: Workspace, **knobs: object) -> Summary:
    chosen = {"dataset": "shop", "root": str(workspace.root), "min_inter": 5, **knobs}
    return run(CandidatesSettings.model_validate(chosen), workspace)


def test_the_stage_freezes_a_hashed_file(tmp_path: Path) -> None:
    summary = draw(shop(tmp_path))
    path = tmp_path / "data" / "shop" / "processed" / "test_uni9_w5_s42.jsonl"
    assert summary.artifact == path
    assert summary.headline == "12 lists of 10 candidates in test_uni9_w5_s42.jsonl"
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.details == {"sha256": sha256(path), "draws": 2}
    assert summary.facts["sha256"] == sha256(path)
    assert manifest.counts == {"lines": 12, "too_short": 0, "duplicates": 0, "examples": 12}
    assert manifest.inputs.keys() == {"titles", "train", "test"}
    assert list(json.loads(path.read_text().splitlines()[0])) == list(GOOD)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [*ROWS, ("short", ["i1", "i2"]), ROWS[0]]
    for knobs in ({}, {"legacy": True}):
        summary = draw(shop(tmp_path, rows), **knobs)
        assert summary.headline.endswith("; 1 lines too short, 1 duplicates")
        assert summary.facts["examples"] == 12
        assert [example.user_id for example in read_candidates(summary.artifact)] == [user for user, _ in ROWS]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    one, two = draw(shop(tmp_path / "one")).artifact, draw(shop(tmp_path / "two")).artifact
    assert one.read_bytes() == two.read_bytes()
    third = draw(shop(tmp_path / "three", ROWS[::-1])).artifact
    assert third.read_text().splitlines() == one.read_text().splitlines()[::-1]


def test_a_finished_file_is_left_alone(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    path = draw(workspace).artifact
    before = path.stat().st_mtime_ns
    summary = draw(workspace)
    assert summary.headline == "test_uni9_w5_s42.jsonl is there already; nothing to do."
    assert summary.artifact == path
    assert path.stat().st_mtime_ns == before


def test_other_knobs_are_other_files(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    names = [
        draw(workspace, **knobs).artifact.name
        for knobs in (
            {"seed": 1},
            {"num_neg": 3},
            {"negatives": "popularity"},
            {"negatives": "all"},
            {"min_inter": 4},
            {"legacy": True},
            {"split": "train"},
        )
    ]
    assert names == [
        "test_uni9_w5_s1.jsonl",
        "test_uni3_w5_s42.jsonl",
        "test_pop9_w5_s42.jsonl",
        "test_full_w5_s42.jsonl",
        "test_uni9_w4_s42.jsonl",
        "test_legacy-uni9_w5_s42.jsonl",
        "train_uni9_w5_s42.jsonl",
    ]


def test_changed_data_is_refused_by_name_and_replaced_when_asked(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    path = draw(workspace).artifact
    shop(tmp_path, ROWS[:6])
    with pytest.raises(ArtifactError, match=r"the input test has changed since; the input train has .* --overwrite"):
        draw(workspace)
    assert len(read_candidates(path)) == 12
    draw(workspace, overwrite=True)
    assert len(read_candidates(path)) == 6
    assert "nothing to do" in draw(workspace).headline


def test_an_unfinished_file_is_made_again_and_the_users_own_kept(tmp_path: Path) -> None:
    """A draw that was killed has left its mark beside the file; a file without one is somebody's own."""
    workspace = shop(tmp_path)
    path = draw(workspace).artifact
    whole = path.read_bytes()
    manifest_path(path).unlink()
    path.write_bytes(whole[:100])
    with pytest.raises(ArtifactError, match=r"is there and `mllmrec candidates` didn't make it"):
        draw(workspace)
    assert path.read_bytes() == whole[:100]
    marker_of(path).touch()
    draw(workspace)
    assert path.read_bytes() == whole
    assert not marker_of(path).exists()
    path.unlink()
    draw(workspace)
    assert path.read_bytes() == whole


def test_overwriting_that_breaks_off_leaves_no_finished_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = shop(tmp_path)
    path = draw(workspace).artifact

    def cut(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mllmrec.data.candidates.stage.write_jsonl", cut)
    with pytest.raises(OSError, match="No space left"):
        draw(workspace, overwrite=True)
    assert Manifest.read(path) is None


def test_a_split_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no test lines: test\.tsv is missing or empty"):
        draw(write_dataset(tmp_path, train=tsv(ROWS)))


def test_too_many_negatives_and_too_long_windows_are_told(tmp_path: Path) -> None:
    workspace = shop(tmp_path)
    with pytest.raises(DataError, match=r"99 negatives were asked for, but only 5\d of 60"):
        draw(workspace, num_neg=99)
    with pytest.raises(DataError, match="the longest has 5"):
        draw(workspace, min_inter=6)
    with pytest.raises(DataError, match="99 negatives can't be drawn from 60 items"):
        draw(workspace, num_neg=99, legacy=True)
    assert not workspace.dataset("shop").processed.exists()


@pytest.mark.real_data
def test_lists_of_the_real_movielens(real_data: Path) -> None:
    interactions = Interactions.load(Workspace(real_data.parent), "movielens")
    known = interactions.known("test")
    frozen, counts = freeze(interactions, "test", window=10, num_neg=99, seed=42)
    assert counts == {"lines": 6040, "too_short": 0, "duplicates": 0}
    assert all(len(set(example.candidates)) == 100 for example in frozen)
    assert all(known[e.user_id].isdisjoint(set(e.candidates) - {e.target_id}) for e in frozen)
    places = Counter(example.candidates.index(example.target_id) for example in frozen)
    assert max(places.values()) < 60.4 + 5 * 7.8
