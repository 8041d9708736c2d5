"""Drawing candidate lists: one target among negatives, drawn once and frozen in a file (names: `protocols.py`).

A negative is an item the user isn't known to have met at that split. The draw and the order of each list depend on
(seed, split, example id) alone. In training nothing is frozen: each stage and epoch draws anew for a purpose of
its own. The reference implementation's draw lives in `legacy.py`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.negatives import VERSION, VERSIONS, Draw, FirstSampler, PoolSampler, Sampler
from mllmrec.data.draws import uniform
from mllmrec.data.sequences import Interactions, Line, Windows, windows
from mllmrec.errors import ArtifactError, DataError
from mllmrec.records import RankingExample, Split, example_id
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import read_jsonl


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


def item_counts(lines: Iterable[Line]) -> Counter[str]:
    """How often each item occurs in lines."""
    return Counter(itertools.chain.from_iterable(line.items for line in lines))


def make_sampler(
    interactions: Interactions, split: Split, negatives: str = "uniform", version: int = VERSION
) -> Sampler:
    """The sampler of a split: `uniform`, or `popularity` as counted in the train lines without validation targets.

    Its pool is the catalogue and, from version 2 on, whatever occurs in the sequences that are known at that split.
    """
    counts = item_counts(interactions.fit_lines()) if negatives == "popularity" else None
    if version == 1:
        return FirstSampler(interactions.catalogue.ids, counts)
    return PoolSampler(interactions.pool(split), counts)


def with_candidates(
    example: RankingExample, sampler: Sampler, known: frozenset[str], num_neg: int, seed: int, purpose: str
) -> RankingExample:
    """`example` with its target and `num_neg` negatives, all drawn by (seed, purpose, example id)."""
    forbidden = known | {example.target_id} | set(example.history)
    candidates = sampler.listed(example.target_id, num_neg, forbidden, Draw(seed, purpose, example.example_id))
    return replace(example, candidates=tuple(candidates))


def freeze(
    interactions: Interactions,
    split: Split,
    *,
    window: int,
    num_neg: int,
    seed: int,
    negatives: str = "uniform",
    version: int = VERSION,
) -> tuple[list[RankingExample], dict[str, int]]:
    """The frozen lists of a split: one example a line, negatives outside all that is known of the user there.

    `all` draws none: every item that isn't known of the user is a candidate, and lists are left empty.
    `with_unseen` counts the lists for which the items with a popularity were too few.
    """
    examples, counts = questions(interactions.lines(split), split, window)
    if negatives == "all":
        return examples, counts
    sampler = make_sampler(interactions, split, negatives, version)
    known = interactions.known(split)
    drawn = [
        with_candidates(example, sampler, known[example.user_id], num_neg, seed, f"candidates/{split}")
        for example in examples
    ]
    if negatives == "popularity":
        seen = item_counts(interactions.fit_lines()).keys()
        counts["with_unseen"] = sum(not seen >= set(own.candidates) - {own.target_id} for own in drawn)
    return drawn, counts


def draw_version(manifest: Manifest | None) -> int:
    """The version by which an artifact's lists were drawn: the first where its manifest has none."""
    details = manifest.details if manifest is not None else None
    version = details.get("draws", 1) if isinstance(details, dict) else 1
    if version not in VERSIONS:
        raise ArtifactError(
            f"A manifest tells of draws of version {version!r}. Expected one of {', '.join(map(str, VERSIONS))}; make "
            "the lists again with --overwrite, or use the version of the program that drew them."
        )
    return int(version)


def sliced(examples: Sequence[RankingExample], limit: int | None, seed: int) -> list[RankingExample]:
    """The `limit` examples whose users have the smallest hash of (seed, split, user), in that order; all without one.

    A larger slice begins with a smaller one; neither depends on the order or the number of the other rows.
    """
    if limit is None:
        return list(examples)
    drawn = {example.user_id: uniform(seed, f"slice/{example.split}", example.user_id) for example in examples}
    return sorted(examples, key=lambda example: (drawn[example.user_id], example.example_id))[:limit]


def candidate_rows(examples: Sequence[RankingExample]) -> Iterator[dict[str, object]]:
    """The JSON rows of a candidate file."""
    return (dict(vars(example)) for example in examples)


def read_candidates(path: Path) -> list[RankingExample]:
    """The examples of a candidate file. Raises DataError at the first line that lacks something."""
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
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
