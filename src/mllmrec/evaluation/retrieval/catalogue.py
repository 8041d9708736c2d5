"""Ranking the whole catalogue: where a target stands among all items that aren't known of its user.

This is the protocol without any draw, and the only one in which nobody chose what the target is held against. Scores of
all items for all users would be tens of millions of numbers, so rankings.jsonl keeps the best of each list and the
target, with the length of the list and how many stand above the target and beside it.

What a recommender makes of the whole catalogue, user after user: the one way by which retrieval asks a baseline.

What a recommender of the whole catalogue may give a user: every item that isn't known of the user already.
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

KEPT = 100

USERS_AT_A_TIME = 128


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


def catalogue_scores(
    settings: RetrieveSettings,
    workspace: Workspace,
    interactions: Interactions,
    examples: Sequence[RankingExample],
    items: Sequence[str],
) -> tuple[Iterator[Floats], dict[str, Any]]:
    """One array over `items` for each example, in their order, and how the retriever came about.

    It is fitted, tuned and cached as `mllmrec baselines` does it, and reads each user's whole line before the target.
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


def _check_installed(name: str) -> None:
    if FAMILIES[name].rectools and importlib.util.find_spec("rectools") is None:
        others = [each for each in RETRIEVERS if each in FAMILIES and not FAMILIES[each].rectools]
        raise SettingsError(
            f"The retriever {name} needs RecTools, which isn't installed. Install it: {INSTALL}; or take one that does "
            f"without: --retriever {' or '.join(others)}."
        )


def scored(baseline: Baseline, examples: Sequence[RankingExample], items: Sequence[str]) -> Iterator[Floats]:
    """The scores of `items` for each example, of few users at a time."""
    for batch in batches(examples, USERS_AT_A_TIME):
        yield from baseline.score_items(batch, items)


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The items of the catalogue, and of each user what is known at a split and what was met before its target."""

    items: Sequence[str]
    known: Mapping[str, AbstractSet[str]]
    before: Mapping[str, AbstractSet[str]]

    @classmethod
    def of(cls, interactions: Interactions, split: Split) -> Shelf:
        parts = (interactions.train, interactions.valid) if split == "test" else (interactions.fit_lines(),)
        before: defaultdict[str, set[str]] = defaultdict(set)
        for lines in parts:
            for line in lines:
                before[line.user_id].update(line.items)
        return cls(items=interactions.pool(split), known=interactions.known(split), before=before)

    @cached_property
    def column(self) -> dict[str, int]:
        """Where each item stands among `items`."""
        return {item: index for index, item in enumerate(self.items)}

    def free(self, taken: Iterable[str]) -> NDArray[np.bool_]:
        """Which of `items` are left when some are taken; what is no item of the catalogue is passed over."""
        free_I = np.ones(len(self.items), dtype=bool)
        free_I[[self.column[item] for item in taken if item in self.column]] = False
        return free_I

    def taken(self, example: RankingExample, *, rerank: bool) -> set[str]:
        """What a retriever may not give: all that is known, and the target itself unless it is to be found."""
        known = {*self.known.get(example.user_id, ()), *example.history, example.target_id}
        met = example.target_id in example.history or example.target_id in self.before.get(example.user_id, ())
        return known - {example.target_id} if rerank and not met else known
