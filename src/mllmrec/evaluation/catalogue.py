"""Ranking the whole catalogue: where a target stands among all items that aren't known of its user.

This is the protocol without any draw, and the only one in which nobody chose what the target is held against. Scores of
all items for all users would be tens of millions of numbers, so rankings.jsonl keeps the best of each list and the
target, with the length of the list and how many stand above the target and beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.rankings import ranking_of
from mllmrec.evaluation.retrieval_scores import scored
from mllmrec.evaluation.shelf import Shelf
from mllmrec.records import Ranking, RankingExample

KEPT = 100


def ranked(baseline: Baseline, examples: Sequence[RankingExample], interactions: Interactions) -> Iterator[Ranking]:
    """The ranking of each example: of its candidates, or of the whole catalogue where it spells none out."""
    if spells_lists(examples):
        for example, scores in zip(examples, baseline.score_lists(examples), strict=True):
            yield ranking_of(example, scores)
        return
    shelf = Shelf.of(interactions, examples[0].split)
    for example, scores_I in zip(examples, scored(baseline, examples, shelf.items), strict=True):
        yield best_kept(example, shelf.items, scores_I, shelf.free(shelf.taken(example, rerank=False)))


def spells_lists(examples: Sequence[RankingExample]) -> bool:
    """Whether the examples have candidates of their own; without, every item that isn't known of the user is one."""
    return any(example.candidates for example in examples)


def check_cuts(top_k: Sequence[int], examples: Sequence[RankingExample]) -> None:
    """Refuse a K beyond what is kept of the whole catalogue, because result files list the K best."""
    if not spells_lists(examples) and max(top_k) > KEPT:
        raise SettingsError(
            f"top_k = {','.join(map(str, top_k))}: of a ranking of the whole catalogue the {KEPT} best are kept. "
            f"Expected K of at most {KEPT}."
        )


def best_kept(
    example: RankingExample, items: Sequence[str], scores_I: NDArray[np.float64], free_I: NDArray[np.bool_]
) -> Ranking:
    """The ranking of the target among the free items, of which the `KEPT` best are kept, best first.

    Equals stand in the order of the catalogue. A target that isn't among the best stands behind them.
    """
    if np.isnan(scores_I).any():
        raise DataError(f"A score of user {example.user_id} is NaN. Expected numbers; fit the baseline again.")
    own = items.index(example.target_id)
    free_I = free_I.copy()
    free_I[own] = True
    target, scores_F = scores_I[own], scores_I[free_I]
    higher, ties = int((scores_F > target).sum()), int((scores_F == target).sum()) - 1
    best = np.flatnonzero(free_I)[np.argsort(-scores_F, kind="stable")[:KEPT]].tolist()
    kept = best if own in best else [*best, own]
    return Ranking(
        example_id=example.example_id,
        user_id=example.user_id,
        target_id=example.target_id,
        candidates=tuple(items[index] for index in kept),
        scores=tuple(float(scores_I[index]) for index in kept),
        higher=higher,
        ties=ties,
        rank=higher + 1 + ties / 2,
        num_candidates=len(scores_F),
    )
