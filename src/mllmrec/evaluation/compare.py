"""The stage `compare`: is one RUN better than another, by how much, and how sure is that?

Every metric of every RUN is set against the first RUN user by user. A difference counts as found when its 95 %
interval leaves zero out; where it doesn't, the minimum detectable difference says how small a difference these
users could have shown at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mllmrec.artifacts import Workspace
from mllmrec.errors import DataError
from mllmrec.evaluation.metrics import Position, means, per_user
from mllmrec.evaluation.rankings import position_of
from mllmrec.evaluation.runs import Run, read_run
from mllmrec.evaluation.statistics import Interval, bootstrap, minimum_detectable, randomisation_p_values
from mllmrec.evaluation.tables import check_same_question, shown
from mllmrec.records import Ranking, Summary, Table
from mllmrec.settings.evaluation import CompareSettings


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of the first RUN and of another; `difference` is other - first, paired by user."""

    metric: str
    first: float
    other: float
    difference: Interval
    p_value: float
    minimum_detectable: float


def run(settings: CompareSettings, workspace: Workspace) -> Summary:
    """Compare the RUN folders, given by path or by path under the root, with the first of them."""
    runs = [read_run(_folder(path, workspace)) for path in settings.runs]
    compared = compare(runs, seed=settings.seed)
    first, others = runs[0], runs[1:]
    return Summary(
        headline=(
            f"Compared {', '.join(each.label for each in others)} with {first.label} on the same "
            f"{first.facts['num_users']} users."
        ),
        tables=tuple(_table(first, other, rows) for other, rows in zip(others, compared, strict=True)),
        facts={str(other.folder): [asdict(row) for row in rows] for other, rows in zip(others, compared, strict=True)},
    )


def compare(runs: Sequence[Run], *, seed: int = 42) -> list[list[Difference]]:
    """The paired differences of every metric that all RUNs tell, for each RUN but the first."""
    check_same_question(runs)
    names = [name for name in runs[0].facts["metrics"] if all(name in each.facts["metrics"] for each in runs)]
    values = [per_user(positions, names) for positions in paired_positions(runs)]
    differences = np.hstack([other - values[0] for other in values[1:]])
    columns = zip(
        names * len(values[1:]),
        means(values[0]) * len(values[1:]),
        means(np.hstack(values[1:])),
        bootstrap(differences, seed=seed),
        randomisation_p_values(differences, seed=seed),
        minimum_detectable(differences),
        strict=True,
    )
    rows = [
        Difference(metric=name, first=first, other=other, difference=difference, p_value=p, minimum_detectable=least)
        for name, first, other, difference, p, least in columns
    ]
    return [rows[start : start + len(names)] for start in range(0, len(rows), len(names))]


def paired_positions(runs: Sequence[Run]) -> list[list[Position]]:
    """Where each user's target came out in each RUN, users in the order of the first RUN."""
    answers = [{ranking.example_id: _answer(ranking) for ranking in each.rankings()} for each in runs]
    for each, theirs in zip(runs[1:], answers[1:], strict=True):
        _check_same_users(runs[0], answers[0], each, theirs)
    return [[own[key].position for key in answers[0]] for own in answers]


class Answer(NamedTuple):
    """What pairing keeps of a ranking; `question` is a hash of target and candidates."""

    user_id: str
    question: int
    position: Position


def _answer(ranking: Ranking) -> Answer:
    return Answer(ranking.user_id, hash((ranking.target_id, ranking.candidates)), position_of(ranking))


def _check_same_users(first: Run, ours: dict[str, Answer], other: Run, theirs: dict[str, Answer]) -> None:
    missing, foreign = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    if missing or foreign:
        example = min(missing or foreign)
        raise DataError(
            f"{first.folder} and {other.folder} ranked different users: {len(missing)} examples are only in the first "
            f"and {len(foreign)} only in the second, such as {example} of user {(ours | theirs)[example].user_id}. "
            "Expected the same users; rank one candidate file with both."
        )
    for key, answer in ours.items():
        if answer.question != theirs[key].question:
            raise DataError(
                f"{first.folder} and {other.folder} gave user {answer.user_id} (example {key}) another target or other "
                "candidates. Expected the same list in both; rank one candidate file with both."
            )


def _table(first: Run, other: Run, rows: Sequence[Difference]) -> Table:
    names = shown([row.metric for row in rows], first)
    return Table(
        title=f"{other.label} - {first.label}, {first.facts['dataset']}, {first.facts['num_users']} users",
        columns=("metric", first.label, other.label, "difference [95 %]", "p", "detectable"),
        rows=tuple(
            (
                name,
                f"{row.first:.3f}",
                f"{row.other:.3f}",
                f"{row.difference.value:+.3f} [{row.difference.low:+.3f}, {row.difference.high:+.3f}]",
                f"{row.p_value:.4f}",
                f"{row.minimum_detectable:.3f}",
            )
            for name, row in zip(names, rows, strict=True)
        ),
        note=(
            "p: paired randomisation test, two-sided, not corrected for several metrics. detectable: the true "
            "difference that a 5 % test on these users finds in 80 % of repetitions."
        ),
    )


def _folder(path: str, workspace: Workspace) -> Path:
    """The folder itself, or the one under the root."""
    folder = Path(path).expanduser()
    return folder if folder.exists() else workspace.root / folder
