"""Rewards: pure functions of an answer and its example.

Each is `reward(completion, example) -> float`; `for_trainer` wraps one in the list form that TRL calls. The gold
answer scores the maximum and an invalid answer strictly below every valid one; the tests hold every registered
reward to that, except `reference`, which is kept to compare with published figures and breaks the second rule: it
pays +0.3 for a well-formed id that isn't even a candidate, as much as for a valid miss. So a policy may earn reward
with answers that can't be ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mllmrec.data.prompts import parse
from mllmrec.records import RankingExample

Reward = Callable[[str, RankingExample], float]

HIT, MISS, INVALID = 1.0, 0.0, -1.5
ROLLOUT_FIGURES = ("outside_mass", "candidate_entropy")
"""What drawing among candidates reports of a prompt: the mass of other answers, and the entropy of the candidates'."""
CHOSEN = "chosen/"
"""Before a position of the candidate list, in logs: the share of answers that named the candidate there."""


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


def shares(
    completions: Sequence[str], examples: Sequence[RankingExample], weights: Sequence[float] | None = None
) -> dict[str, float]:
    """What a batch of answers amounts to, whichever reward is chosen; each counts once, or by its weight.

    The shares of hits, of answers in the right form (one line, any id), of invalid ones (no candidate), and of those
    that named each position of the candidate list; positions and invalid answers sum to one.

    >>> example = RankingExample(example_id="e", user_id="u", history=("1",), candidates=("2", "3"),
    ...                          target_id="3", split="train")
    >>> shares(["[ITEM_3] c", "[ITEM_3] c", "[ITEM_9] z", "I don't know"], [example] * 4)
    {'hit_share': 0.5, 'format_share': 0.75, 'invalid_share': 0.5, 'chosen/1': 0.0, 'chosen/2': 0.5}
    """
    weights = [1] * len(completions) if weights is None else weights
    longest = max(len(example.candidates) for example in examples)
    names = (
        "hit_share",
        "format_share",
        "invalid_share",
        *(f"{CHOSEN}{position}" for position in range(1, longest + 1)),
    )
    sums = dict.fromkeys(names, 0.0)
    for text, example, weight in zip(completions, examples, weights, strict=True):
        for name in _counts_as(text, example):
            sums[name] += weight
    return {name: value / sum(weights) for name, value in sums.items()}


def for_trainer(reward: Reward, decode: Callable[[Sequence[int]], str] | None = None) -> Callable[..., list[float]]:
    """`reward` as TRL calls it: lists in, list out. Columns `candidates` and `target_id` come from the dataset.

    `decode` reads the answers' tokens in place of TRL's own text, which has lost marks of reasoning that are special
    tokens, so that reasoning would pass for the answer.
    The `shares` of each batch are logged beside the reward, and what a rollout reported of its prompts.
    """

    def rewards(
        completions: Sequence[str],
        candidates: Sequence[Sequence[str]],
        target_id: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        examples = [
            RankingExample(
                example_id="", user_id="", history=(), candidates=tuple(listed), target_id=target, split="train"
            )
            for listed, target in zip(candidates, target_id, strict=True)
        ]
        if decode is not None and "completion_ids" in columns:
            completions = [decode(ids) for ids in columns["completion_ids"]]
        if log_metric is not None:
            drawn = {name: sum(columns[name]) / len(columns[name]) for name in ROLLOUT_FIGURES if name in columns}
            for name, value in (shares(completions, examples) | drawn).items():
                log_metric(name, value)
        return [reward(text, example) for text, example in zip(completions, examples, strict=True)]

    rewards.__name__ = "reward"
    return rewards


def _counts_as(text: str, example: RankingExample) -> Iterator[str]:
    """The names of the shares that an answer belongs to."""
    answer, result = parse(text), outcome(text, example)
    if answer.lines == 1 and answer.item_id is not None:
        yield "format_share"
    if result == "invalid":
        yield "invalid_share"
        return
    if result == "hit":
        yield "hit_share"
    yield f"{CHOSEN}{example.candidates.index(str(answer.item_id)) + 1}"
