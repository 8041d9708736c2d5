"""Scores and rankings of the whole catalogue, and the pool of items that each user may be given.

A ranking of the whole catalogue puts the target among all items that the user isn't known to have met: the protocol
without any draw of negatives. Scores of all items for all users would be tens of millions of numbers, so rankings.jsonl
keeps the `KEPT` best of each list and the target, with the length of the list and how many items are above the target
and tied with it. Retrieval asks its baseline for scores of the catalogue here too.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines.base import Baseline, Floats, batches, with_full_history
from mllmrec.evaluation.baselines.families import FAMILIES, INSTALL, Fitting
from mllmrec.evaluation.baselines.fitting import lines_for, open_baseline
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.records import Ranking, RankingExample, Split
from mllmrec.settings.data import RETRIEVERS, RetrieveSettings
from mllmrec.storage.workspace import Workspace

KEPT, USERS_AT_A_TIME = 100, 128


@dataclass(frozen=True, kw_only=True)
class ItemPool:
    """The items of the catalogue, with each user's items that are known at a split and those met before the target."""

    items: Sequence[str]
    known: Mapping[str, AbstractSet[str]]
    before: Mapping[str, AbstractSet[str]]

    @classmethod
    def of(cls, interactions: Interactions, split: Split) -> ItemPool:
        parts = (interactions.train, interactions.valid) if split == "test" else (interactions.fit_lines(),)
        before: defaultdict[str, set[str]] = defaultdict(set)
        for lines in parts:
            for line in lines:
                before[line.user_id].update(line.items)
        return cls(items=interactions.pool(split), known=interactions.known(split), before=before)

    @cached_property
    def column(self) -> dict[str, int]:
        """The index of each item in `items`."""
        return {item: index for index, item in enumerate(self.items)}

    def free(self, taken: Iterable[str]) -> NDArray[np.bool_]:
        """A mask over `items`, False for those that are taken; ids outside the catalogue are ignored."""
        free_I = np.ones(len(self.items), dtype=bool)
        free_I[[self.column[item] for item in taken if item in self.column]] = False
        return free_I

    def taken(self, example: RankingExample, *, rerank: bool) -> set[str]:
        """Items that a retriever may not give: all that are known of the user, and the target unless `rerank`.

        A target that the user met before it was the target is taken with `rerank` too.
        """
        known = {*self.known.get(example.user_id, ()), *example.history, example.target_id}
        met = example.target_id in example.history or example.target_id in self.before.get(example.user_id, ())
        return known - {example.target_id} if rerank and not met else known


def ranked(baseline: Baseline, examples: Sequence[RankingExample], interactions: Interactions) -> Iterator[Ranking]:
    """The ranking of each example: of its candidates, or of the whole catalogue where it has none of its own."""
    if spells_lists(examples):
        for example, scores in zip(examples, baseline.score_lists(examples), strict=True):
            yield ranking_of(example, scores)
        return
    pool = ItemPool.of(interactions, examples[0].split)
    for example, scores_I in zip(examples, scored(baseline, examples, pool.items), strict=True):
        yield best_kept(example, pool.items, scores_I, pool.free(pool.taken(example, rerank=False)))


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

    Items of equal score keep the order of the catalogue. A target that isn't among the best comes after them.
    Raises DataError for a NaN.
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


def catalogue_scores(
    settings: RetrieveSettings,
    workspace: Workspace,
    interactions: Interactions,
    examples: Sequence[RankingExample],
    items: Sequence[str],
) -> tuple[Iterator[Floats], dict[str, Any]]:
    """For each example, in their order, an array of the scores of `items`; and facts about the retriever.

    It is fitted, tuned and cached as by `mllmrec baselines`, and reads each user's whole line before the target.
    """
    _check_installed(settings.retriever)
    fitting = Fitting(
        workspace=workspace,
        dataset=settings.dataset,
        interactions=interactions,
        window=settings.min_inter,
        seed=settings.seed,
    )
    fitted = open_baseline(settings.retriever, fitting, settings.split)
    details = {"history": "full", "fit_lines": len(lines_for(fitting, settings.split))}
    tuning = {"tuning": asdict(fitted.tuning)} if fitted.tuning else {}
    full = with_full_history(examples, interactions.lines(settings.split))
    return scored(fitted.baseline, full, items), details | tuning


def scored(baseline: Baseline, examples: Sequence[RankingExample], items: Sequence[str]) -> Iterator[Floats]:
    """The scores of `items` for each example, computed for `USERS_AT_A_TIME` users at once."""
    for batch in batches(examples, USERS_AT_A_TIME):
        yield from baseline.score_items(batch, items)


def _check_installed(name: str) -> None:
    if FAMILIES[name].rectools and importlib.util.find_spec("rectools") is None:
        others = [other for other in RETRIEVERS if other in FAMILIES and not FAMILIES[other].rectools]
        raise SettingsError(
            f"The retriever {name} needs RecTools, which isn't installed. Install it: {INSTALL}; or take one that does "
            f"without: --retriever {' or '.join(others)}."
        )
