"""Rewards: the gold answer scores the maximum, and an invalid answer strictly below every valid one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmrec.records import RankingExample
from mllmrec.training.grpo.rewards import REWARDS, for_trainer, outcome, reference, strict

EXAMPLE = RankingExample(
    example_id="e",
    user_id="u",
    history=("1", "5"),
    candidates=("12", "123", "a.b-c", "4"),
    target_id="12",
    split="train",
)
GOLDEN = ("[ITEM_12] Toy Story", "[ITEM_12]", "  [ITEM_12] Toy Story \n\n", "[ITEM_12] Another title altogether")
THOUGHT = ("<think>\n\n</think>\n\n[ITEM_12] Toy Story", "<think>[ITEM_4] d or\n[ITEM_123]?</think>[ITEM_12] Toy Story")
MISSES = ("[ITEM_123] Heat", "[ITEM_4] d", "[ITEM_a.b-c] x", "<think>[ITEM_12]</think>[ITEM_4] [ITEM_12]")
FOREIGN = ("[ITEM_9] Not a candidate", "[ITEM_1] From the history", "[ITEM_1234] z", "[ITEM_012] Toy Story")
MALFORMED = (
    "",
    " \n\t ",
    "Toy Story",
    "12",
    "I would choose [ITEM_12] Toy Story",
    "[ITEM_12 Toy Story",
    "[ITEM_12]Toy Story",
    "ITEM_12] Toy Story",
    "[item_12] Toy Story",
    "[ITEM_] Toy Story",
    "[ITEM_12, ITEM_4]",
    "<think>[ITEM_12] Toy Story</think>",
    "<think>\n[ITEM_12] Toy Story",
)
SEVERAL = (
    "[ITEM_12] Toy Story\n[ITEM_12] Toy Story",
    "[ITEM_12] Toy Story\n[ITEM_4] d",
    "[ITEM_12] Toy Story\nbecause it is alike",
    "Here it is:\n[ITEM_12] Toy Story",
)
HELD_TO_THE_RULE = sorted(set(REWARDS) - {"reference"})
VALID, INVALID = GOLDEN + THOUGHT + MISSES, FOREIGN + MALFORMED + SEVERAL


@pytest.mark.parametrize("text", GOLDEN + THOUGHT)
def test_the_gold_answer_earns_one(text: str) -> None:
    assert (strict(text, EXAMPLE), outcome(text, EXAMPLE)) == (1.0, "hit")


@pytest.mark.parametrize("text", MISSES)
def test_another_candidate_earns_nothing(text: str) -> None:
    assert (strict(text, EXAMPLE), outcome(text, EXAMPLE)) == (0.0, "miss")


@pytest.mark.parametrize("text", INVALID)
def test_what_is_not_exactly_one_candidate_costs(text: str) -> None:
    assert (strict(text, EXAMPLE), outcome(text, EXAMPLE)) == (-1.5, "invalid")


@pytest.mark.parametrize("name", sorted(REWARDS))
@pytest.mark.parametrize("gold", GOLDEN + THOUGHT)
def test_nothing_earns_more_than_the_gold_answer(name: str, gold: str) -> None:
    reward = REWARDS[name]
    assert all(reward(text, EXAMPLE) <= reward(gold, EXAMPLE) for text in VALID + INVALID)


@pytest.mark.parametrize("name", HELD_TO_THE_RULE)
def test_an_invalid_answer_earns_less_than_every_valid_one(name: str) -> None:
    reward = REWARDS[name]
    assert max(reward(text, EXAMPLE) for text in INVALID) < min(reward(text, EXAMPLE) for text in VALID)


@given(text=st.text(alphabet="[]ITEM_124\n <think>/", max_size=40), name=st.sampled_from(HELD_TO_THE_RULE))
def test_no_text_escapes_the_rule(text: str, name: str) -> None:
    reward = REWARDS[name]
    gold, miss = reward(GOLDEN[0], EXAMPLE), reward(MISSES[0], EXAMPLE)
    expected = {"hit": gold, "miss": miss}.get(outcome(text, EXAMPLE))
    assert reward(text, EXAMPLE) == expected if expected is not None else reward(text, EXAMPLE) < min(gold, miss)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("[ITEM_12] Toy Story", 1.0),
        ("[ITEM_4] d", 0.3),
        ("[ITEM_9] Not a candidate", 0.3),
        ("[ITEM_12]", 1.0),
        ("<think></think>[ITEM_12] Toy Story", 1.0),
        ("Toy Story", -1.0),
        ("", -1.0),
    ],
)
def test_the_reference_rule_pays_for_form_even_where_nothing_can_be_ranked(text: str, reward: float) -> None:
    assert reference(text, EXAMPLE) == reward


def test_the_trainer_gets_a_list_and_the_shares_are_logged() -> None:
    logged: dict[str, float] = {}
    texts = [GOLDEN[0], MISSES[0], FOREIGN[0], MALFORMED[0], "[ITEM_8] x"]
    columns = {
        "candidates": [list(EXAMPLE.candidates)] * 4 + [["8", "9"]],
        "target_id": ["12"] * 4 + ["8"],
        "prompts": ["p"] * 5,
        "completion_ids": [[1]] * 5,
        "trainer_state": None,
    }
    for name, expected in (("strict", [1.0, 0.0, -1.5, -1.5, 1.0]), ("reference", [1.0, 0.3, 0.3, -1.0, 1.0])):
        assert for_trainer(REWARDS[name])(completions=texts, log_metric=logged.__setitem__, **columns) == expected
        places = {"chosen/1": 0.4, "chosen/2": 0.2, "chosen/3": 0.0, "chosen/4": 0.0}
        assert logged == {"hit_share": 0.4, "format_share": 0.8, "invalid_share": 0.4, **places}
    assert for_trainer(strict)(completions=texts, **columns) == [1.0, 0.0, -1.5, -1.5, 1.0]


def test_reasoning_whose_marks_the_trainer_has_dropped_is_read_from_the_tokens() -> None:
    """What TRL hands on is two lines of an item each: malformed, where the answer is the target."""
    pieces = {1: "[THINK]", 2: "[ITEM_4] maybe\n", 3: "[/THINK]", 4: "[ITEM_12] Toy Story"}
    columns = {"candidates": [list(EXAMPLE.candidates)], "target_id": ["12"], "completion_ids": [[1, 2, 3, 4]]}
    text = "[ITEM_4] maybe\n[ITEM_12] Toy Story"
    rewards = for_trainer(strict, lambda ids: "".join(pieces[number] for number in ids))
    assert (rewards(completions=[text], **columns), for_trainer(strict)(completions=[text], **columns)) == (
        [1.0],
        [-1.5],
    )


def test_an_error_of_a_reward_is_not_swallowed() -> None:
    def broken(completion: str, example: RankingExample) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        for_trainer(broken)(completions=["x"], candidates=[["1"]], target_id=["1"])
    with pytest.raises(ValueError, match="zip"):
        for_trainer(strict)(completions=["x", "y"], candidates=[["1"]], target_id=["1"])
