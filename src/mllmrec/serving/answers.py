"""What a recommender is asked and answers, and the arithmetic of shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf

from mllmrec.evaluation.ranking.thoughts import log_sum_exp
from mllmrec.serving.items import Named


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which of `candidates` comes after `history`, oldest first? Both hold ids, whole titles, or items of the user's.

    An `Item` may be one that the catalogue lacks; the model is then shown its id and title.
    """

    history: Sequence[Named]
    candidates: Sequence[Named]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The answers to a question, in the order of its candidates.

    `log_probabilities` are of whole answers, in nats; `tokens` were read for them, and `thoughts` written before. The
    prompt held the last `history_read` items of the history.
    """

    log_probabilities: tuple[float, ...]
    tokens: int
    history_read: int
    thoughts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RankedItem:
    """A candidate with its share among all, and the log-probability that the model gives its whole answer, in nats.

    `raw_id` is the id that the raw files had; `index` is the candidate's position in the list that was ranked.
    """

    item_id: str
    raw_id: str
    title: str
    probability: float
    log_probability: float
    index: int


class Ranking(list[RankedItem]):
    """Candidates, best first; of the `history_given` items of the history the model was shown the last `history_read`.

    A part of it, `ranking[:3]`, is a plain list.
    """

    def __init__(self, items: Iterable[RankedItem], *, history_given: int, history_read: int) -> None:
        super().__init__(items)
        self.history_given, self.history_read = history_given, history_read


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What an item of the history does to another one's log-odds: with it minus without it, in nats."""

    item_id: str
    title: str
    effect: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an item stands where it stands among `candidates`: a reason for each item that the model read, oldest first.

    `log_odds` is log(p / (1 - p)) of its share p: by the model alone, or by the blend that is named. `thoughts` is what
    the model wrote before it answered, if it thinks.
    """

    item_id: str
    title: str
    probability: float
    log_odds: float
    reasons: tuple[Reason, ...]
    candidates: tuple[str, ...]
    history_given: int
    blend: str | None = None
    thoughts: tuple[str, ...] = ()

    @property
    def history_read(self) -> int:
        """How many items, from the end of the history, the model was shown."""
        return len(self.reasons)


def history_cut(given: int, read: int) -> str:
    """What is told of a history that was longer than what the model was shown; empty where all of it was.

    >>> history_cut(12, 9)
    'Of the 12 items of the history the model was shown the last 9.'
    """
    return f"Of the {given:,} items of the history the model was shown the last {read:,}." if read < given else ""


def shares(scores: Sequence[float]) -> list[float]:
    """Each candidate's share: exp(score) over the sum of exp(scores).

    >>> [round(share, 3) for share in shares([-3.0, -3.0])]
    [0.5, 0.5]
    """
    total = log_sum_exp(scores)
    return [exp(score - total) for score in scores]


def log_odds(scores: Sequence[float], row: int) -> float:
    """log(p / (1 - p)) of one candidate's share p; infinite where it is the only one.

    >>> from math import log
    >>> round(log_odds([log(0.3), log(0.1)], 0), 6) == round(log(3), 6)
    True
    """
    others = [score for number, score in enumerate(scores) if number != row]
    return scores[row] - log_sum_exp(others) if others else inf
