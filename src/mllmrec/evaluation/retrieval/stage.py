"""The stage `retrieve`: a recommender of the whole catalogue chooses the candidates that a ranker is asked about.

    hard19, hard99    the target and the items that the retriever scores highest beside it, as hard negatives
    rr100             the retriever's top items as they come, to be reranked; a target that it missed is absent and
                      counts zero, so the share of targets among them is the ceiling of every ranking of them

The retriever has learned from train lines alone (for validation from those without validation targets) and reads the
user's whole line before the target. Items that are known of the user are out, as for drawn negatives;
in rr100 a target that the user had met before is out with them, because nothing but the past may decide what is
retrieved. Among items of equal score at the cut, lots are drawn, and the order of candidates is drawn by hash.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mllmrec.data.candidates.drawing import candidate_rows, questions
from mllmrec.data.candidates.negatives import VERSION, Draw, lots, ordered
from mllmrec.data.candidates.stage import left_out, lines_asked, lists_path
from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError
from mllmrec.evaluation.retrieval.catalogue import ItemPool, catalogue_scores
from mllmrec.progress import progress
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.data import RetrieveSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.manifests import drop_marker, finished, making, unmark, write_manifest
from mllmrec.storage.workspace import Workspace, sha256, write_jsonl

Scores = NDArray[np.float64]


@locking(lists_path)
def run(settings: RetrieveSettings, workspace: Workspace) -> Summary:
    """Write processed/<split>_<hard19 or rr100>[-<retriever>]_w<min_inter>_s<seed>.jsonl."""
    started = time.monotonic()
    path = lists_path(settings, workspace)
    inputs = workspace.dataset(settings.dataset).source_hashes()
    if finished(path, settings, inputs) is not None:
        drop_marker(path)
        return Summary(headline=f"{path.name} is there already; nothing to do.", artifact=path)
    interactions = Interactions.load(workspace, settings.dataset)
    examples, counts = questions(
        lines_asked(interactions, settings.dataset, settings.split), settings.split, settings.min_inter
    )
    pool = ItemPool.of(interactions, settings.split)
    _check_enough(settings, pool, examples)
    scores, details = catalogue_scores(settings, workspace, interactions, examples, pool.items)
    lists = retrieve(examples, scores, pool, settings.count, rerank=settings.rerank, seed=settings.seed)
    drawn = []
    with progress(f"retrieving with {settings.retriever}", len(examples)) as advance:
        for example, cut_among_equals in lists:
            drawn.append(example)
            counts["cut_among_equals"] = counts.get("cut_among_equals", 0) + cut_among_equals
            advance(1)
    counts["examples"] = len(drawn)
    if settings.rerank:
        counts["retrieved"] = sum(example.target_id in example.candidates for example in drawn)
    with making(path, settings):
        unmark(path)
        write_jsonl(path, candidate_rows(drawn))
        facts = {"sha256": sha256(path), "draws": VERSION, "retriever": settings.retriever, **details}
        write_manifest(path, settings, inputs, started=started, counts=counts, details=facts)
    return Summary(headline=_headline(settings, path, counts), artifact=path, facts={**facts, **counts})


def retrieve(
    examples: Sequence[RankingExample],
    scores: Iterator[Scores],
    pool: ItemPool,
    count: int,
    *,
    rerank: bool,
    seed: int,
) -> Iterator[tuple[RankingExample, bool]]:
    """Each example with its list, and whether lots were drawn among equals.

    `scores` yields the retriever's score of every item of the pool, example by example.
    """
    for example, scores_I in zip(examples, scores, strict=True):
        draw = Draw(seed, f"retrieve/{example.split}", example.example_id)
        free_I = pool.free(pool.taken(example, rerank=rerank))
        above, equals = best(scores_I, free_I, count)
        chosen = [pool.items[index] for index in above]
        chosen += lots([pool.items[index] for index in equals], count - len(above), draw)
        candidates = ordered(chosen if rerank else [*chosen, example.target_id], draw)
        yield replace(example, candidates=tuple(candidates)), len(above) + len(equals) > count


def best(scores_I: Scores, free_I: NDArray[np.bool_], count: int) -> tuple[list[int], list[int]]:
    """Of the free items those above the score of the `count`-th best, and those that have it.

    >>> best(np.array([1.0, 3.0, 9.0, 1.0, 0.0]), np.array([True, True, False, True, True]), 2)
    ([1], [0, 3])
    """
    if np.isnan(scores_I).any():
        raise DataError("A retriever scored an item NaN. Expected numbers; fit it again with --overwrite.")
    cut = np.partition(scores_I[free_I], -count)[-count]
    above, equals = (np.flatnonzero(free_I & mask).tolist() for mask in (scores_I > cut, scores_I == cut))
    return above, equals


def _check_enough(settings: RetrieveSettings, pool: ItemPool, examples: Sequence[RankingExample]) -> None:
    members = frozenset(pool.items)
    taken = (members & pool.taken(example, rerank=settings.rerank) for example in examples)
    least = len(members) - max(map(len, taken))
    if least < settings.count:
        remedy = f"Lower --num to {least} or less." if least else "Use a larger catalogue, or leave this user out."
        raise DataError(
            f"{settings.count} items were to be retrieved, and for one user only {least} of {len(members)} are not "
            f"known. {remedy}"
        )


def _headline(settings: RetrieveSettings, path: Path, counts: Mapping[str, int]) -> str:
    users = counts["examples"]
    if settings.rerank:
        retrieved = counts["retrieved"]
        message = (
            f"The top {settings.count} of {settings.retriever} for each of {users:,} users in {path.name}; the target "
            f"is among them for {retrieved:,} ({retrieved / users:.1%}), and no ranking of them can find more"
        )
    else:
        message = (
            f"{users:,} targets in {path.name}, each among the {settings.count} items that {settings.retriever} puts "
            "highest beside it"
        )
    return message + left_out(counts)
