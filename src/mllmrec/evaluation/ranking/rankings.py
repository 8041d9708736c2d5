"""Rankings: made from the scores or answers of one example, and written to and read from rankings.jsonl."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import Position, rank_of
from mllmrec.records import Ranking, RankingExample
from mllmrec.storage.workspace import read_jsonl, require, write_jsonl

UNANSWERED = 0.0
"""The score of a candidate that no generated answer named."""


def ranking_of(example: RankingExample, scores: Sequence[float]) -> Ranking:
    """The record of one example from its candidates' scores.

    >>> example = RankingExample(
    ...     example_id="e", user_id="7", history=("3",), candidates=("4", "5", "6"), target_id="5", split="test"
    ... )
    >>> ranking_of(example, [0.1, 0.9, 0.9]).rank
    1.5
    """
    if len(scores) != len(example.candidates):
        raise DataError(
            f"Example {example.example_id} of user {example.user_id} has {len(example.candidates)} candidates and "
            f"{len(scores)} scores. Expected one score for each candidate."
        )
    listed = example.target_id in example.candidates
    higher, ties = rank_of(scores, example.candidates.index(example.target_id) if listed else None)
    return _ranking(example, scores, higher, ties, higher + 1 + ties / 2 if listed else None)


def ranking_of_answers(example: RankingExample, answers: Sequence[str]) -> Ranking:
    """The record of one example from the distinct candidates that a model named, best first.

    The first of n answers scores n, the last 1, and what was never named scores UNANSWERED. A target that was never
    named is ranked nowhere: no credit for a tie among what the model left out.

    >>> example = RankingExample(
    ...     example_id="e", user_id="7", history=("3",), candidates=("4", "5", "6"), target_id="5", split="test"
    ... )
    >>> ranking_of_answers(example, ["6", "5"]).scores, ranking_of_answers(example, ["6", "5"]).rank
    ((0.0, 1.0, 2.0), 2.0)
    >>> ranking_of_answers(example, ["6"]).higher, ranking_of_answers(example, ["6"]).rank
    (3, None)
    """
    foreign = [answer for answer in answers if answer not in example.candidates]
    if foreign or len(set(answers)) < len(answers):
        raise DataError(
            f"Example {example.example_id} of user {example.user_id} was answered with {list(answers)}. Expected "
            "distinct candidates; drop repeated and foreign ids first."
        )
    scores = dict(zip(answers, range(len(answers), 0, -1), strict=True))
    named = example.target_id in scores
    higher = answers.index(example.target_id) if named else len(example.candidates)
    return _ranking(
        example,
        [scores.get(item, UNANSWERED) for item in example.candidates],
        higher,
        0,
        higher + 1.0 if named else None,
    )


def position_of(ranking: Ranking) -> Position:
    """The position of the target, which is all that metrics need of a ranking.

    >>> position_of(Ranking(example_id="e", user_id="7", target_id="5", candidates=("4", "5"),
    ...                     scores=(0.1, 0.9), higher=0, ties=0, rank=1.0))
    Position(higher=0, ties=0, num_candidates=2, listed=True)
    """
    listed = ranking.target_id in ranking.candidates
    return Position(ranking.higher, ranking.ties, ranking.num_candidates or len(ranking.candidates), listed)


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> int:
    """Write one line a ranking, as they come, and return how many. No example may come twice."""
    return write_jsonl(path, map(_row, _checked(rankings)))


def read_rankings(path: Path) -> Iterator[Ranking]:
    """The rankings of a file, one at a time; a DataError names the line that lacks something or holds a NaN."""
    require(path, "The rankings file", "Make the RUN again with --overwrite.")
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            ranking = Ranking(**{**row, "candidates": tuple(row["candidates"]), "scores": tuple(row["scores"])})
            _check(ranking, f"{path}:{number}")
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: not a ranking ({error}). Expected example_id, user_id, target_id, candidates, "
                "scores, higher, ties and rank; make the RUN again with --overwrite."
            ) from error
        yield ranking


def _row(ranking: Ranking) -> dict[str, object]:
    """The fields of a line; a list that is whole has no length of its own."""
    return {name: value for name, value in vars(ranking).items() if (name, value) != ("num_candidates", None)}


def _ranking(example: RankingExample, scores: Sequence[float], higher: int, ties: int, rank: float | None) -> Ranking:
    return Ranking(
        example_id=example.example_id,
        user_id=example.user_id,
        target_id=example.target_id,
        candidates=example.candidates,
        scores=tuple(float(score) for score in scores),
        higher=higher,
        ties=ties,
        rank=rank,
    )


def _checked(rankings: Iterable[Ranking]) -> Iterator[Ranking]:
    seen: set[str] = set()
    for ranking in rankings:
        where = f"Example {ranking.example_id}"
        if ranking.example_id in seen:
            raise DataError(
                f"{where} of user {ranking.user_id} was ranked twice. Expected one ranking an example; "
                "drop the repeated line from the split and draw its candidates again."
            )
        seen.add(ranking.example_id)
        _check(ranking, where)
        yield ranking


def _check(ranking: Ranking, where: str) -> None:
    """Refuse anything but one finite score for each candidate: JSON holds no infinity, and a NaN can't be ordered."""
    if len(ranking.scores) != len(ranking.candidates):
        raise DataError(
            f"{where}: user {ranking.user_id} has {len(ranking.candidates)} candidates and {len(ranking.scores)} "
            "scores. Expected one score for each candidate; rank them again."
        )
    if ranking.num_candidates is not None and ranking.num_candidates < len(ranking.candidates):
        raise DataError(
            f"{where}: {len(ranking.candidates)} candidates of user {ranking.user_id} are kept of a list of "
            f"{ranking.num_candidates}. Expected a longer list; rank it again."
        )
    if all(map(math.isfinite, ranking.scores)):
        return
    for item, score in zip(ranking.candidates, ranking.scores, strict=True):
        if not math.isfinite(score):
            raise DataError(
                f"{where}: the score of candidate {item} of user {ranking.user_id} is {score}. Expected a finite "
                "number; the model or its checkpoint is broken, train or load it again."
            )
