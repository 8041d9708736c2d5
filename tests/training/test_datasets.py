"""What training sees: which windows, with which negatives, in which order, and never a later target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import DATASET, WINDOW, grpo_settings, sft_settings

from mllmrec.data.draws import in_fold
from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.errors import DataError
from mllmrec.records import RankingExample
from mllmrec.settings.training import SftSettings, TrainingSettings
from mllmrec.storage.workspace import Workspace, write_json, write_text
from mllmrec.training.datasets import (
    TrainingExamples,
    refuse_leaks,
    training_examples,
    validation_examples,
)


@pytest.fixture(scope="module")
def interactions(toy: Workspace) -> Interactions:
    return Interactions.load(toy, DATASET)


@pytest.fixture
def held_out(toy_copy: Workspace) -> Workspace:
    """A dataset without a valid.tsv, whose validation users are therefore found by hash."""
    toy_copy.dataset(DATASET).split("valid").unlink()
    return toy_copy


def examples_of(workspace: Workspace, settings: TrainingSettings | None = None, **knobs: object) -> TrainingExamples:
    settings = settings or sft_settings(workspace, **({"limit": None} | knobs))
    return training_examples(settings, workspace, Interactions.load(workspace, DATASET), WINDOW)


def drawn(examples: TrainingExamples, epoch: int = 0) -> list[RankingExample]:
    return [examples.example(epoch, index) for index in range(len(examples))]


def users(examples: Iterable[RankingExample]) -> set[str]:
    return {example.user_id for example in examples}


def negatives(example: RankingExample) -> set[str]:
    return set(example.candidates) - {example.target_id}


def test_an_example_is_a_window_its_target_and_negatives_unknown_to_the_user(
    toy: Workspace, interactions: Interactions
) -> None:
    examples = examples_of(toy)
    lines = {line.user_id: line.items for line in interactions.train}
    assert len(examples) == len(lines)
    for example in drawn(examples):
        assert (*example.history, example.target_id) == lines[example.user_id][-WINDOW:]
        assert example.candidates.count(example.target_id) == 1
        assert len(set(example.candidates)) == 5
        assert not negatives(example) & set(lines[example.user_id])
        assert negatives(example) <= set(interactions.catalogue)


def test_all_windows_are_every_run_of_that_length(toy: Workspace, interactions: Interactions) -> None:
    spans = {
        (line.user_id, *line.items[start : start + WINDOW])
        for line in interactions.train
        for start in range(len(line.items) - WINDOW + 1)
    }
    found = drawn(examples_of(toy, windows="all"))
    assert {(example.user_id, *example.history, example.target_id) for example in found} == spans
    assert len(found) == len(spans)


def test_each_epoch_draws_fresh_negatives_in_a_fresh_order(toy: Workspace) -> None:
    examples = examples_of(toy)
    first, second = drawn(examples, 0), drawn(examples, 1)
    changed = [negatives(a) != negatives(b) for a, b in zip(first, second, strict=True)]
    assert sum(changed) > 0.95 * len(changed)
    places = {example.candidates.index(example.target_id) for example in first}
    assert places == set(range(5))
    rows = list(examples.rows(2))
    half = len(examples)
    assert [epoch for epoch, _ in rows] == [0] * half + [1] * half
    orders = [[index for _, index in part] for part in (rows[:half], rows[half:])]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(half))
    assert orders[0] != orders[1] != list(range(half))


def test_grpo_sees_other_lists_than_sft(toy: Workspace) -> None:
    sft, grpo = examples_of(toy), examples_of(toy, grpo_settings(toy, limit=None))
    assert [a.example_id for a in sft.questions] == [b.example_id for b in grpo.questions]
    same = [negatives(a) == negatives(b) for a, b in zip(drawn(sft), drawn(grpo), strict=True)]
    assert sum(same) < 0.05 * len(same)
    assert list(sft.rows(1)) != list(grpo.rows(1))


def test_a_row_depends_on_seed_purpose_and_id_alone(toy: Workspace, toy_copy: Workspace) -> None:
    """Half of the users gone and the rest in another order: those who stay have the lists that they had."""
    path = toy_copy.dataset(DATASET).split("train")
    lines = path.read_text().splitlines()
    write_text(path, "\n".join(reversed(lines[::2])) + "\n")
    whole = {example.example_id: example for example in drawn(examples_of(toy))}
    part = drawn(examples_of(toy_copy))
    assert len(part) == len(lines[::2])
    assert all(whole[example.example_id] == example for example in part)
    other_seed = drawn(examples_of(toy, seed=7))
    assert sum(whole[example.example_id] == example for example in other_seed) < 0.05 * len(whole)


def test_the_halves_of_a_fold_are_disjoint_and_cover(toy: Workspace) -> None:
    whole = users(examples_of(toy).questions)
    for parts in (2, 3):
        found = [users(examples_of(toy, fold=f"{part}/{parts}").questions) for part in range(1, parts + 1)]
        assert set().union(*found) == whole
        assert sum(map(len, found)) == len(whole)
        assert min(map(len, found)) > 0.6 * len(whole) / parts
    assert all(in_fold(user, "") for user in whole)


def test_a_limit_is_drawn_by_hash_and_nested(toy: Workspace) -> None:
    """The first 20 of a limit of 40 are those of a limit of 20, they aren't the head of the file, and seeds differ."""
    whole = [example.example_id for example in examples_of(toy).questions]
    small, large, other = (
        [example.example_id for example in examples_of(toy, **knobs).questions]
        for knobs in ({"limit": 20}, {"limit": 40}, {"limit": 20, "seed": 7})
    )
    assert (len(small), large[:20]) == (20, small)
    assert set(small) < set(whole)
    assert set(small) != set(whole[:20])
    assert set(small) != set(other)
    assert examples_of(toy, limit=10_000).counts["examples"] == len(whole)


def test_a_limit_from_the_other_end_takes_first_what_is_left_out(toy: Workspace) -> None:
    """No example in both where the limits leave room, and as few as there have to be where they don't."""
    count = len(examples_of(toy).questions)
    half, most = count // 2, count - 10
    sft = {limit: examples_of(toy, limit=limit).questions for limit in (half, most)}
    grpo = {
        limit: examples_of(toy, grpo_settings(toy, limit=limit, limit_from="last")).questions
        for limit in (20, half, most)
    }

    def both(fine_tuned: int, asked: int) -> int:
        ids = {example.example_id for example in sft[fine_tuned]}
        return sum(example.example_id in ids for example in grpo[asked])

    assert both(half, 20) == both(half, half) == 0
    assert both(most, 20) == 10
    assert both(most, most) == count - 20
    assert grpo[half][:20] == grpo[20]


@pytest.mark.parametrize("windows", ["last", "all"])
def test_no_window_of_a_validation_user_is_trained_on(held_out: Workspace, windows: str) -> None:
    interactions = Interactions.load(held_out, DATASET)
    validation = {line.user_id for line in interactions.train if is_held_out(line.user_id)}
    assert 5 < len(validation) < 40
    assert users(examples_of(held_out, windows=windows).questions) == (
        {line.user_id for line in interactions.train} - validation
    )
    scored = validation_examples(sft_settings(held_out, eval_users=1000), interactions, WINDOW)
    assert users(scored) == validation
    targets = {line.user_id: line.items[-1] for line in interactions.train}
    assert all(example.target_id == targets[example.user_id] for example in scored)


def test_with_a_validation_file_every_train_line_is_trained_on(toy: Workspace, interactions: Interactions) -> None:
    assert users(examples_of(toy).questions) == {line.user_id for line in interactions.train}


def test_the_validation_slice_is_fixed_nested_and_the_same_for_both_stages(
    toy: Workspace, interactions: Interactions
) -> None:
    def scored(settings: TrainingSettings) -> list[RankingExample]:
        return sorted(validation_examples(settings, interactions, WINDOW), key=lambda example: example.example_id)

    small, large = scored(sft_settings(toy, eval_users=10)), scored(sft_settings(toy, eval_users=50))
    assert (len(small), len(large)) == (10, 50)
    assert all(example in large for example in small)
    assert scored(grpo_settings(toy, eval_users=10)) == small
    known = interactions.known("valid")
    assert all(not negatives(example) & known[example.user_id] for example in large)


def test_without_a_long_enough_validation_line_there_is_no_slice(
    interactions: Interactions, toy: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    short = replace(interactions, valid=[replace(interactions.valid[0], items=("101", "102"))])
    assert validation_examples(sft_settings(toy), short, WINDOW) == []
    assert "the last checkpoint is kept, not the best one" in capsys.readouterr().err


TRAIN = "u1\ta b c d e\n\nu2\tc d e f a\n"
VALID = "u1\ta b c d e f\nu2\tc d e f a g\n"
TEST = "u1\ta b c d e f g\nu2\tc d e f a g h\n"


def by_hand(workspace: Workspace, train: str = TRAIN, valid: str = VALID, test: str = TEST) -> Interactions:
    """Two users of a catalogue of letters; an empty text stands for a file that isn't there."""
    for split, text in (("train", train), ("valid", valid), ("test", test)):
        path = workspace.dataset("letters").split(split)
        path.unlink(missing_ok=True)
        if text:
            write_text(path, text)
    write_text(
        workspace.dataset("letters").titles, "item,title\n" + "".join(f"{item},Title {item}\n" for item in "abcdefghij")
    )
    return Interactions.load(workspace, "letters")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("u2\tc", "u2\th c", r"train.tsv:3: the line of user u2 contains h, the test target of this user; 1 lines"),
        ("u2\tc", "u2\tg c", r"train.tsv:3: the line of user u2 contains g, the valid target of this user"),
        ("u1\ta b", "u1\ta g b", r"train.tsv:1: the line of user u1 contains g, the test target of this user"),
    ],
)
def test_a_train_line_with_a_later_target_is_refused_by_line(
    tmp_path: Path, before: str, after: str, found: str
) -> None:
    interactions = by_hand(Workspace(tmp_path), train=TRAIN.replace(before, after))
    settings = SftSettings(dataset="letters", min_inter=5, num_neg=2)
    with pytest.raises(DataError, match=found):
        training_examples(settings, Workspace(tmp_path), interactions, 5)


def test_what_the_later_line_itself_repeats_is_no_leak(tmp_path: Path) -> None:
    """u1 comes back to b at last: b stands in the history of the test line, so the train line may hold it."""
    repeat = TEST.replace("a b c d e f g\n", "a b c d e f b\n", 1)
    refuse_leaks(by_hand(Workspace(tmp_path), test=repeat))
    with pytest.raises(DataError, match="contains b, the test target"):
        refuse_leaks(by_hand(Workspace(tmp_path), test=repeat.replace("u1\ta b", "u1\ta")))


def test_another_users_target_is_no_leak(tmp_path: Path) -> None:
    """h is the target of someone else: u1's line may hold it, and is trained on with it."""
    interactions = by_hand(Workspace(tmp_path), train=TRAIN.replace("u1\ta", "u1\th a"))
    refuse_leaks(interactions)
    assert "h" in next(line.items for line in interactions.training_lines() if line.user_id == "u1")


def test_training_needs_no_test_file(tmp_path: Path) -> None:
    """Where test.tsv is absent nothing of it is asked for, and nothing changes in what is trained on."""
    settings = SftSettings(dataset="letters", min_inter=5, num_neg=2)
    workspace = Workspace(tmp_path)
    expected = training_examples(settings, workspace, by_hand(workspace), 5)
    without = training_examples(settings, workspace, by_hand(workspace, test=""), 5)
    assert drawn(without) == drawn(expected)


def test_a_window_longer_than_every_line_is_refused_with_the_longest(tmp_path: Path) -> None:
    settings = SftSettings(dataset="letters", num_neg=2)
    with pytest.raises(DataError, match=r"No line of the train split has 10 items \(the longest has 5\)"):
        training_examples(settings, Workspace(tmp_path), by_hand(Workspace(tmp_path)), 10)


def test_more_negatives_than_items_are_refused(tmp_path: Path) -> None:
    settings = SftSettings(dataset="letters", min_inter=5, num_neg=9)
    examples = training_examples(settings, Workspace(tmp_path), by_hand(Workspace(tmp_path)), 5)
    with pytest.raises(DataError, match=r"9 negatives were asked for, but only 5 of 10 items"):
        examples.example(0, 0)


def trace(examples: TrainingExamples, index: int, train: Interactions) -> dict[str, object]:
    question = examples.questions[index]
    number = next(line.line_index for line in train.train if line.user_id == question.user_id)
    return {
        "line_idx": number,
        "user_id": question.user_id,
        "history_items": [{"item_id": item} for item in question.history],
        "target_item": {"item_id": question.target_id},
        "reasoning": f"Step 1: {question.user_id}",
    }


def test_hints_are_a_share_of_all_examples_among_those_with_a_trace(
    toy_copy: Workspace, interactions: Interactions, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = examples_of(toy_copy)
    assert plain.hints == {}
    rows = [trace(plain, index, interactions) for index in range(0, len(plain), 2)]
    write_json(toy_copy.dataset(DATASET).refined_cot, rows)
    hinted = examples_of(toy_copy, use_cot=True, cot_prob=0.25)
    eligible = {plain.questions[index].example_id: plain.questions[index].user_id for index in range(0, len(plain), 2)}
    assert len(hinted.hints) == round(0.25 * len(plain))
    assert all(text == f"Step 1: {eligible[key]}" for key, text in hinted.hints.items())
    assert examples_of(toy_copy, use_cot=True, cot_prob=0.25).hints == hinted.hints
    assert examples_of(toy_copy, use_cot=False, cot_prob=0.25).hints == {}
    assert "hints for" not in capsys.readouterr().err
    conditioned = hinted.counts["answer_conditioned_hints"], plain.counts["answer_conditioned_hints"]
    assert conditioned == (len(hinted.hints), 0), "the reference's refiner is shown the target"
    short = examples_of(toy_copy, use_cot=True, cot_prob=0.75)
    assert len(short.hints) == len(rows)
    assert f"hints for {len(rows)} of the {round(0.75 * len(plain))} examples" in capsys.readouterr().err
