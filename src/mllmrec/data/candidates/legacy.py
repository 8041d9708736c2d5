"""The reference implementation's candidate lists: its draw, bit for bit, and the caches that it left behind.

Its draw runs one generator through the whole file and forbids only the visible window, so that a negative may be an
item the user did consume. It exists here to compare with published figures; frozen files of our own are better.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from mllmrec.data.candidates.drawing import read_candidates
from mllmrec.data.candidates.protocols import CacheName
from mllmrec.data.sequences import Interactions, Line
from mllmrec.errors import DataError
from mllmrec.records import RankingExample, Split, example_id
from mllmrec.storage.workspace import read_json


def draw_legacy(
    lines: Sequence[Line], pool: Sequence[str], split: Split, *, window: int, num_neg: int, seed: int
) -> list[RankingExample]:
    """Candidates as the reference draws them: `pool` is all ids in the order of the titles file."""
    rng = random.Random(seed)
    examples, members = [], frozenset(pool)
    for line in lines:
        if len(line.items) < window:
            continue
        span = line.items[-window:]
        forbidden = set(span)
        if len(forbidden & members) + num_neg > len(pool):
            raise DataError(f"{num_neg} negatives can't be drawn from {len(pool)} items; lower --num-neg.")
        negatives: list[str] = []
        while len(negatives) < num_neg:
            item = rng.choice(pool)
            if item not in forbidden:
                forbidden.add(item)
                negatives.append(item)
        candidates = [span[-1], *negatives]
        rng.shuffle(candidates)
        examples.append(_example(line, window, candidates, split))
    return _distinct(examples)


def read_legacy_cache(path: Path, lines: Sequence[Line], window: int) -> list[RankingExample]:
    """The candidate lists of a `*_generate_*.json` cache, joined to the split's kept lines by position.

    Such a cache holds neither user nor history, and prompts of another template: the prompts are dropped, and each
    row is verified by its target. Raises DataError at the first row that doesn't fit.
    """
    name = CacheName.parse(path)
    if name is None:
        raise DataError(
            f"{path} is not named like a cache of the reference implementation "
            "(SPLIT_generate_seedS_negN[_cot_P][_int_M].json). Make candidates with `mllmrec candidates`."
        )
    if name.mode == "train":
        raise DataError(f"{path} holds finished training messages, no candidate lists; only an audit can use it.")
    if name.window not in (None, window):
        raise DataError(f"{path} was made with --min-inter {name.window}, and {window} was asked for.")
    split = name.split
    kept = [line for line in lines if len(line.items) >= window]
    rows = read_json(path)
    if not isinstance(rows, list) or len(rows) != len(kept):
        count = len(rows) if isinstance(rows, list) else type(rows).__name__
        raise DataError(f"{path} has {count} rows; the {split} split keeps {len(kept)} lines of {window} items.")
    examples = []
    for number, (row, line) in enumerate(zip(rows, kept, strict=True)):
        if not isinstance(row, dict) or str(row.get("target_id")) != line.items[-1]:
            raise DataError(
                f"{path}: row {number} doesn't belong to line {line.line_index + 1} of the {split} file, whose target "
                f"is {line.items[-1]}. The cache was made from other data; draw candidates anew."
            )
        candidates = row.get("candidates")
        if not isinstance(candidates, list) or line.items[-1] not in map(str, candidates):
            raise DataError(f"{path}: row {number} has no list of candidates with its target {line.items[-1]} in it.")
        examples.append(_example(line, window, [str(item) for item in candidates], split))
    return _distinct(examples)


def load_candidates(path: Path, interactions: Interactions, window: int) -> list[RankingExample]:
    """The examples of a candidate file: ours (.jsonl), or a cache of the reference implementation (.json)."""
    if path.suffix != ".json":
        return read_candidates(path)
    split = cast(Split, path.name.split("_", 1)[0])
    lines = interactions.lines(split) if split in ("train", "valid", "test") else []
    return read_legacy_cache(path, lines, window)


def _example(line: Line, window: int, candidates: Sequence[str], split: Split) -> RankingExample:
    *history, target = line.items[-window:]
    return RankingExample(
        example_id=example_id(line.user_id, target, history),
        user_id=line.user_id,
        history=tuple(history),
        candidates=tuple(candidates),
        target_id=target,
        split=split,
    )


def _distinct(examples: Sequence[RankingExample]) -> list[RankingExample]:
    """The first of examples that occur twice; they are dropped after the draw, so that the other lists don't change."""
    distinct: dict[str, RankingExample] = {}
    for example in examples:
        distinct.setdefault(example.example_id, example)
    return list(distinct.values())
