"""Rewards: pure functions of an answer and its example.

Each is `reward(completion, example) -> float`; `for_trainer` wraps one in the list form that TRL calls. The gold
answer scores the maximum and an invalid answer strictly below every valid one; the tests hold every registered
reward to that, except `reference`, which is kept to compare with published figures and breaks the second rule: it
pays +0.3 for a well-formed id that isn't even a candidate, as much as for a valid miss. So a policy may earn reward
with answers that can't be ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mllmrec.data.prompts import parse
from mllmrec.records import RankingExample

Reward = Callable[[str, RankingExample], float]

HIT, MISS, INVALID = 1.0, 0.0, -1.5


def strict(completion: str, example: RankingExample) -> float:
    """+1 for the target, 0 for another candidate, -1.5 for anything that is not exactly one candidate.

    >>> example = RankingExample(example_id="e", user_id="u", history=("1",), candidates=("2", "3"),
    ...                          target_id="3", split="train")
    >>> [strict(text, example) for text in ("[ITEM_3] c", "[ITEM_2] b", "[ITEM_9] z", "I don't know")]
    [1.0, 0.0, -1.5, -1.5]
    """
    answer = parse(completion)
    if answer.lines != 1 or answer.item_id not in example.candidates:
        return INVALID
    return HIT if answer.item_id == example.target_id else MISS


def reference(completion: str, example: RankingExample) -> float:
    """+1 for the target, +0.3 for any other well-formed answer, candidate or not, -1 for a malformed one."""
    answer = parse(completion)
    if answer.item_id is None:
        return -1.0
    return 1.0 if answer.item_id == example.target_id else 0.3


REWARDS: dict[str, Reward] = {"strict": strict, "reference": reference}


def outcome(completion: str, example: RankingExample) -> str:
    """What an answer amounts to: hit, miss, or invalid."""
    value = strict(completion, example)
    return "hit" if value == HIT else "miss" if value == MISS else "invalid"


def for_trainer(reward: Reward) -> Callable[..., list[float]]:
    """`reward` as TRL calls it: lists in, list out. Columns `candidates` and `target_id` come from the dataset.

    The share of hits and of invalid answers of each batch is logged beside the reward, whichever reward is chosen.
    """

    def rewards(
        completions: Sequence[str],
        candidates: Sequence[Sequence[str]],
        target_id: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **_columns: Any,
    ) -> list[float]:
        examples = [
            RankingExample(
                example_id="", user_id="", history=(), candidates=tuple(listed), target_id=target, split="train"
            )
            for listed, target in zip(candidates, target_id, strict=True)
        ]
        outcomes = [outcome(text, example) for text, example in zip(completions, examples, strict=True)]
        if log_metric is not None:
            log_metric("hit_share", outcomes.count("hit") / len(outcomes))
            log_metric("invalid_share", outcomes.count("invalid") / len(outcomes))
        return [reward(text, example) for text, example in zip(completions, examples, strict=True)]

    rewards.__name__ = "reward"
    return rewards
