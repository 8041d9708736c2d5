"""Candidate lists: one target among negatives, drawn once, frozen in a file, and named by protocol.

A negative is an item the user isn't known to have met at that split. The draw and the order of each list depend on
(seed, split, example id) alone. In training nothing is frozen: each stage and epoch draws anew for a purpose of
its own. The reference implementation's draw lives in `legacy.py`.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllmrec.artifacts import read_jsonl
from mllmrec.data.draws import generator
from mllmrec.data.sequences import Interactions, Line, Windows, windows
from mllmrec.errors import DataError
from mllmrec.records import RankingExample, Split, example_id

Sampler = Callable[[random.Random, int, frozenset[str]], list[str]]


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
    """Draws items in proportion to how often they occur in `lines`; an item that never occurs is never drawn."""
    counts = Counter(itertools.chain.from_iterable(line.items for line in lines))
    met = [item for item in pool if counts[item]]
    cumulative = list(itertools.accumulate(counts[item] for item in met))

    def sample(rng: random.Random, count: int, forbidden: frozenset[str]) -> list[str]:
        return _rejecting(lambda: met[bisect.bisect(cumulative, rng.random() * cumulative[-1])], count, forbidden)

    return _checked(sample, met)


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
    """The frozen lists of a split: one example a line, negatives outside all that is known of the user there."""
    examples, counts = questions(interactions.lines(split), split, window)
    pool = interactions.catalogue.ids
    sampler = uniform_sampler(pool) if negatives == "uniform" else popularity_sampler(pool, interactions.fit_lines())
    known = interactions.known(split)
    drawn = [
        with_candidates(example, sampler, known[example.user_id], num_neg, seed, f"candidates/{split}")
        for example in examples
    ]
    return drawn, counts


def protocol_name(num_neg: int, negatives: str = "uniform", *, legacy: bool = False) -> str:
    """The protocol as it is shown with every metric: uni9, pop99, legacy-uni9."""
    return ("legacy-" if legacy else "") + {"uniform": "uni", "popularity": "pop"}[negatives] + str(num_neg)


def protocol_of(path: Path) -> str:
    """The protocol a candidate file is named after; its whole stem when it isn't named our way.

    >>> protocol_of(Path("processed/test_legacy-uni9_w10_s42.jsonl"))
    'legacy-uni9'
    """
    parts = path.stem.split("_")
    return parts[1] if len(parts) == 4 and path.suffix == ".jsonl" else path.stem


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


def _rejecting(draw: Callable[[], str], count: int, forbidden: frozenset[str]) -> list[str]:
    """`count` distinct draws outside `forbidden`."""
    accepted: dict[str, None] = {}
    while len(accepted) < count:
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
