"""Worked cases: some users' histories, candidates and scores, with the rank of the target in every RUN.

Users are drawn by hash and not picked, so that the cases show ordinary rankings of a RUN, its misses included.

Posters travel inside the page as small JPEGs, each encoded once. Opening images that nobody vouches for belongs to
another room, so a function that does it is passed in.
"""

from __future__ import annotations

import base64
import heapq
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from mllmrec.data.draws import uniform
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import SettingsError
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.ranking.thoughts import read_thoughts
from mllmrec.evaluation.reporting.ladder import MeasuredLadder
from mllmrec.evaluation.reporting.ladder_figures import questions
from mllmrec.evaluation.reporting.page import Case, Cases, Poster, Reasoning, Section, ShownCandidate
from mllmrec.evaluation.reporting.runs import Ladder, Rung
from mllmrec.models.base import Picture
from mllmrec.records import Ranking, RankingExample
from mllmrec.storage.workspace import Workspace

SHOWN = 10
LOG_PROBABILITIES = "Bars are a candidate's share of the probability of all candidates; figures are log-probabilities."
ANSWERS = "Figures count down from the first answer that was generated; 0 was not named."
SHARES = (
    "Bars are a candidate's share of the probability of all candidates, averaged over the thoughts; figures are its "
    "logarithm."
)
POINTS = "Bars lie between the lowest and the highest score of the list."

LoadPicture = Callable[[str], Picture | None]
QUALITY = 72


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The cases of one RUN: rankings, questions (where their file is still the same), and ranks in every RUN."""

    rung: Rung
    rankings: list[Ranking]
    examples: Mapping[str, RankingExample]
    ranks: Mapping[str, tuple[tuple[str, str], ...]]
    thoughts: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def users(self) -> set[str]:
        return {ranking.user_id for ranking in self.rankings}


class Posters:
    """The items of a dataset as the page shows them."""

    def __init__(
        self, catalogue: Catalogue, load_picture: LoadPicture | None = None, raw_ids: RawIds | None = None
    ) -> None:
        self._catalogue, self._load, self._raw_ids = catalogue, load_picture, raw_ids or RawIds()
        self._uris: dict[str, str | None] = {}

    def __call__(self, item_id: str, *, pictured: bool = True) -> Poster:
        """The item with its title, and with its picture where there is one and it is wanted."""
        uri = self._uri(item_id) if pictured else None
        raw, item = self._raw_ids.item(item_id), self._catalogue.get(item_id)
        return Poster(item_id=raw, title=item.title if item and item.title else f"Item {raw}", uri=uri)

    def user(self, user_id: str) -> str:
        """A user's id as the page shows it."""
        return self._raw_ids.user(user_id)

    def _uri(self, item_id: str) -> str | None:
        if item_id not in self._uris:
            picture = self._load(item_id) if self._load is not None else None
            self._uris[item_id] = _encoded(picture) if picture is not None else None
        return self._uris[item_id]


def draw_cases(measured: MeasuredLadder, workspace: Workspace, *, run: str, count: int, seed: int) -> Drawn:
    """Draw `count` users by hash and gather what is known of them."""
    ladder = measured.ladder
    rung = _chosen(ladder, run)
    index = {ranking.example_id: number for number, ranking in enumerate(ladder.rungs[0].run.rankings())}
    drawn = set(heapq.nsmallest(count, index, key=lambda key: uniform(seed, "report/case", key)))
    rankings = [ranking for ranking in rung.run.rankings() if ranking.example_id in drawn]
    rankings.sort(key=lambda ranking: (ranking.rank is None, ranking.rank or 0, ranking.example_id))
    ranks = {
        key: tuple(
            (other.label, _rank(positions[index[key]]))
            for other, positions in zip(ladder.rungs, measured.positions, strict=True)
        )
        for key in drawn
    }
    return Drawn(
        rung=rung,
        rankings=rankings,
        examples={key: example for key, example in questions(rung, workspace).items() if key in drawn},
        ranks=ranks,
        thoughts=read_thoughts(rung.run.folder, drawn),
    )


def cases_section(drawn: Drawn, posters: Posters, traces: Mapping[str, Reasoning]) -> Section:
    """The cases, the best ranks first."""
    facts = drawn.rung.run.facts
    method = facts["method"] if drawn.rung.is_model else "points"
    cases = tuple(_case(ranking, drawn, posters, traces.get(ranking.user_id), method) for ranking in drawn.rankings)
    scores_are = {"score": SHARES if drawn.rung.num_thoughts else LOG_PROBABILITIES, "generate": ANSWERS}
    return Section(
        key="cases",
        title="Worked cases",
        short="Cases",
        lead=f"{len(cases)} of {facts['num_users']:,} users, drawn by hash and ranked by `{drawn.rung.label}` "
        f"({facts['protocol']}), in the order of their ranks.",
        blocks=(Cases(cases=cases, scores_are=scores_are.get(method, POINTS)),),
    )


def bars(scores: Sequence[float], method: str) -> list[float]:
    """The lengths of the bars of scores, in percent.

    >>> bars([-1.0, -1.0], "score"), bars([3.0, 1.0, 2.0], "points")
    ([50.0, 50.0], [100.0, 0.0, 50.0])
    """
    low, high = min(scores), max(scores)
    if method == "score":
        weights = [math.exp(score - high) for score in scores]
        return [round(100 * weight / sum(weights), 1) for weight in weights]
    return [round(100 * (score - low) / (high - low), 1) if high > low else 0.0 for score in scores]


def figure(score: float) -> str:
    """A score with two decimals, or with two significant digits where it is smaller than those show.

    >>> figure(-1.234), figure(3.0), figure(0.00321), figure(0.0000021)
    ('−1.23', '3', '0.0032', '2.1e−06')
    """
    form = ".2g" if 0 < abs(score) < 0.1 else ".2f" if score % 1 else ".0f"
    return f"{score:{form}}".replace("-", "−")


def _chosen(ladder: Ladder, run: str) -> Rung:
    """The RUN by its name or its label; the last of the ladder that is no blend where none is named."""
    if not run:
        return ladder.top
    for rung in ladder.rungs:
        if run in (rung.label, rung.run.facts["name"]):
            return rung
    raise SettingsError(
        f"--run {run} names no RUN on {ladder.facts['candidates']}. Expected one of "
        f"{', '.join(rung.label for rung in ladder.rungs)}."
    )


def _case(ranking: Ranking, drawn: Drawn, posters: Posters, trace: Reasoning | None, method: str) -> Case:
    example = drawn.examples.get(ranking.example_id)
    lengths = bars(ranking.scores, method)
    order = sorted(range(len(ranking.scores)), key=lambda index: -ranking.scores[index])
    shown = [index for above, index in enumerate(order) if above < SHOWN or _is_target(ranking, index)]
    return Case(
        user_id=posters.user(ranking.user_id),
        rank="missed" if ranking.rank is None else f"rank {ranking.rank:g}",
        hit=ranking.rank is not None and ranking.rank <= 1,
        target=posters(ranking.target_id),
        history=tuple(posters(item) for item in example.history) if example else (),
        choices=tuple(
            ShownCandidate(
                poster=posters(ranking.candidates[index]),
                position=_position_in_list(ranking, order, index),
                score=figure(ranking.scores[index]),
                share=lengths[index],
                is_target=_is_target(ranking, index),
            )
            for index in shown
        ),
        num_left_out=(ranking.num_candidates or len(order)) - len(shown),
        ranks=drawn.ranks[ranking.example_id],
        trace=replace(trace, user_id=posters.user(trace.user_id)) if trace else None,
        thoughts=tuple(
            thought["text"] + ("" if thought["finished"] else " …")
            for thought in drawn.thoughts.get(ranking.example_id, ())
        ),
    )


def _is_target(ranking: Ranking, index: int) -> bool:
    return ranking.candidates[index] == ranking.target_id


def _position_in_list(ranking: Ranking, order: Sequence[int], index: int) -> str:
    """A candidate's position by its score; of a target beyond the candidates that are kept, its rank."""
    kept = ranking.num_candidates is not None and len(order) < ranking.num_candidates
    if kept and _is_target(ranking, index) and ranking.higher >= len(order) - 1 and ranking.rank is not None:
        return f"{ranking.rank:g}"
    return f"{order.index(index) + 1}"


def _rank(position: Position) -> str:
    """The expected rank of a target; a dash where it was ranked nowhere."""
    higher, ties, count, _ = position
    return "–" if higher == count else f"{higher + 1 + ties / 2:g}"


def _encoded(picture: Picture) -> str:
    """A JPEG as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture.rgb).save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
