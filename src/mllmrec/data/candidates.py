"""Candidate lists: one target among negatives, drawn once, frozen in a file, and named by protocol (`protocols.py`).

A negative is an item the user isn't known to have met at that split. The draw and the order of each list depend on
(seed, split, example id) alone. In training nothing is frozen: each stage and epoch draws anew for a purpose of
its own. The reference implementation's draw lives in `legacy.py`.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_jsonl
from mllmrec.data.draws import generator, uniform
from mllmrec.data.sequences import Interactions, Line, Windows, windows
from mllmrec.errors import DataError
from mllmrec.records import RankingExample, Split, example_id

Sampler = Callable[[random.Random, int, frozenset[str]], list[str]]
TRIES = 50
"""Draws for each negative after which rejecting known and repeated items gives way to a pass over all items."""


def questions(
    lines: Sequence[Line], split: Split, window: int, mode: Windows = "last"
) -> tuple[list[RankingExample], dict[str, int]]:
    """One example without candidates for each window, in file order, and what was left out and why.

    Lines shorter than `window` are too short; an example that occurs twice counts once.
    """
    examples: dict[str, RankingExample] = {}
    counts = {"lines": len(lines), "too_short": 0, "duplicates": 0}
    for line in lines:
        spans = windows(line.items, window, mode)
        counts["too_short"] += not spans
        for *history, target in spans:
            key = example_id(line.user_id, target, history)
            counts["duplicates"] += key in examples
            examples[key] = RankingExample(
                example_id=key,
                user_id=line.user_id,
                history=tuple(history),
                candidates=(),
                target_id=target,
                split=split,
            )
    if not examples:
        longest = max(len(line.items) for line in lines)
        raise DataError(
            f"No line of the {split} split has {window} items (the longest has {longest}). Expected at least "
            f"--min-inter items a line; lower --min-inter to {longest} or less."
        )
    return list(examples.values()), counts


def uniform_sampler(pool: Sequence[str]) -> Sampler:
    """Draws items of `pool` with equal chance, without repetition, outside a forbidden set."""

    def sample(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        if len(pool) > 4 * (count + len(forbidden)):
            return _rejecting(lambda: pool[int(rng.random() * len(pool))], count, forbidden)
        return rng.sample([item for item in pool if item not in forbidden], count)

    return _checked(sample, pool)


def popularity_sampler(pool: Sequence[str], lines: Sequence[Line]) -> Sampler:
    """Draws items one after the other, without repetition, in proportion to how often they occur in `lines`.

    An item that never occurs there weighs nothing: such items are drawn, with equal chance, only where all others
    together are too few.
    """
    counts = item_counts(lines)
    met = [item for item in pool if counts[item]]
    unmet = [item for item in pool if not counts[item]]
    members = frozenset(met)
    cumulative = list(itertools.accumulate(counts[item] for item in met))

    def sample(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        missing = count - (len(met) - len(members & forbidden))
        if missing >= 0:
            rest = rng.sample([item for item in unmet if item not in forbidden], missing)
            return [item for item in met if item not in forbidden] + rest

        def draw() -> str:
            return met[bisect.bisect(cumulative, rng.random() * cumulative[-1])]

        chosen = _rejecting(draw, count, forbidden, tries=TRIES * count)
        if len(chosen) < count:
            # What is left is rare beside what was drawn. The first of exponential clocks, each as fast as its item is
            # frequent, follow the same law and take one pass.
            left = [item for item in met if item not in forbidden.union(chosen)]
            clocks = {item: rng.expovariate(counts[item]) for item in left}
            chosen += sorted(left, key=clocks.__getitem__)[: count - len(chosen)]
        return chosen

    return _checked(sample, pool)


def item_counts(lines: Iterable[Line]) -> Counter[str]:
    """How often each item occurs in lines."""
    return Counter(itertools.chain.from_iterable(line.items for line in lines))


def with_candidates(
    example: RankingExample, sampler: Sampler, known: frozenset[str], num_neg: int, seed: int, purpose: str
) -> RankingExample:
    """`example` with its target and `num_neg` negatives, shuffled, all drawn by (seed, purpose, example id)."""
    rng = generator(seed, purpose, example.example_id)
    forbidden = known | {example.target_id} | set(example.history)
    candidates = [example.target_id, *sampler(rng, num_neg, forbidden)]
    rng.shuffle(candidates)
    return RankingExample(**{**vars(example), "candidates": tuple(candidates)})


def freeze(
    interactions: Interactions, split: Split, *, window: int, num_neg: int, seed: int, negatives: str = "uniform"
) -> tuple[list[RankingExample], dict[str, int]]:
    """The frozen lists of a split: one example a line, negatives outside all that is known of the user there.

    `all` draws none: every item that isn't known of the user is a candidate, and no line spells them out. Popularity is
    counted in the train lines without validation targets; `with_unseen` counts the lists for which they were too few.
    """
    examples, counts = questions(interactions.lines(split), split, window)
    if negatives == "all":
        return examples, counts
    pool, fitted = interactions.catalogue.ids, interactions.fit_lines()
    sampler = uniform_sampler(pool) if negatives == "uniform" else popularity_sampler(pool, fitted)
    known = interactions.known(split)
    drawn = [
        with_candidates(example, sampler, known[example.user_id], num_neg, seed, f"candidates/{split}")
        for example in examples
    ]
    if negatives == "popularity":
        seen = item_counts(fitted).keys()
        counts["with_unseen"] = sum(not seen >= set(each.candidates) - {each.target_id} for each in drawn)
    return drawn, counts


def sliced(examples: Sequence[RankingExample], limit: int | None, seed: int) -> list[RankingExample]:
    """The `limit` examples whose users have the smallest hash of (seed, split, user), in that order; all without one.

    A larger slice begins with a smaller one, and neither hangs on the order or the number of the other rows.
    """
    if limit is None:
        return list(examples)
    drawn = {example.user_id: uniform(seed, f"slice/{example.split}", example.user_id) for example in examples}
    return sorted(examples, key=lambda example: (drawn[example.user_id], example.example_id))[:limit]


def candidate_rows(examples: Sequence[RankingExample]) -> Iterator[dict[str, object]]:
    """The JSON rows of a candidate file."""
    return (asdict(example) for example in examples)


def read_candidates(path: Path) -> list[RankingExample]:
    """The examples of a candidate file; a DataError names the line that lacks something."""
    examples = [_example(row, f"{path}:{number}") for number, row in enumerate(read_jsonl(path), 1)]
    if not examples:
        raise DataError(f"{path} holds no examples. Make it again with `mllmrec candidates`.")
    return examples


def _example(row: Mapping[str, Any], where: str) -> RankingExample:
    texts, lists = ("example_id", "user_id", "target_id", "split"), ("history", "candidates")
    wrong = [name for name in texts if not isinstance(row.get(name), str)]
    wrong += [name for name in lists if not _is_id_list(row.get(name))]
    if wrong:
        raise DataError(
            f"{where}: {', '.join(wrong)} missing or of another kind. Expected the texts {', '.join(texts)} and the "
            f"lists of ids {', '.join(lists)}; make the file with `mllmrec candidates`."
        )
    return RankingExample(
        example_id=row["example_id"],
        user_id=row["user_id"],
        history=tuple(row["history"]),
        candidates=tuple(row["candidates"]),
        target_id=row["target_id"],
        split=row["split"],
    )


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _rejecting(
    draw: Callable[[], str], count: int, forbidden: frozenset[str], tries: float = float("inf")
) -> list[str]:
    """`count` distinct draws outside `forbidden`; fewer where `tries` draws don't find as many."""
    accepted: dict[str, None] = {}
    while len(accepted) < count and tries > 0:
        tries -= 1
        item = draw()
        if item not in forbidden:
            accepted[item] = None
    return list(accepted)


def _checked(sample: Sampler, pool: Sequence[str]) -> Sampler:
    """`sample` that refuses, in words, what the pool can't give."""
    members = frozenset(pool)

    def checked(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        available = len(members) - len(members & forbidden)
        if available < count:
            raise DataError(
                f"{count} negatives were asked for, but only {available} of {len(members)} items are outside what "
                f"one user knows. Lower --num-neg to {available} or less."
            )
        return sample(rng, count, forbidden)

    return checked
