"""The stage `compare`: is one configuration better than another, by how much, and how sure is that?

Every metric of every configuration is set against the first one user by user. All comparisons shown are one family:
Holm's correction keeps the chance of even one false find in it at 5 %, and a difference counts as found when its
corrected p-value is below that. Where it isn't, the minimum detectable difference says how small a difference these
users could have shown at all.

One RUN against one RUN: users are resampled for the interval and the signs of their differences for the p-value.
Where either side has several seeds, the seeds are a level of their own (`pairing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from mllmrec.errors import SettingsError
from mllmrec.evaluation.comparison.pairing import (
    Configuration,
    compare_over_seeds,
    paired_positions,
    read_configuration,
)
from mllmrec.evaluation.comparison.statistics import (
    FOUND,
    Interval,
    bootstrap,
    holm,
    minimum_detectable,
    randomisation_p_values,
    verdict,
)
from mllmrec.evaluation.comparison.tables import shown, users_of
from mllmrec.evaluation.metrics import FloatArray, means, per_user
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import Summary, Table
from mllmrec.settings.evaluation import CompareSettings
from mllmrec.storage.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of the first configuration and of another; `difference` is other - first, paired by user.

    `adjusted` is the p-value corrected for all comparisons made with it.
    """

    metric: str
    first: float
    other: float
    difference: Interval
    p_value: float
    adjusted: float
    minimum_detectable: float

    @property
    def found(self) -> bool:
        return verdict(self.difference.value, self.adjusted) != "not found"


def run(settings: CompareSettings, workspace: Workspace) -> Summary:
    """Compare RUN folders, given by path or by path under the root, with the first; commas join seeds."""
    configurations = [read_configuration(words, workspace) for words in settings.runs]
    compared = compare_configurations(configurations, metrics=settings.metrics, seed=settings.seed)
    first, others = configurations[0], configurations[1:]
    pairs = list(zip(others, compared, strict=True))
    family = sum(map(len, compared))
    found = sum(row.found for rows in compared for row in rows)
    return Summary(
        headline=(
            f"Compared {', '.join(other.label for other in others)} with {first.label} on the same "
            f"{first.runs[0].facts['num_users']:,} users: {found} of {family} differences hold after Holm's correction."
        ),
        tables=_noted_once([_table(first, other, rows, family) for other, rows in pairs]),
        facts={
            ",".join(str(each.folder) for each in other.runs): [asdict(row) for row in rows] for other, rows in pairs
        },
    )


def compare(runs: Sequence[Run], *, metrics: Sequence[str] = (), seed: int = 42) -> list[list[Difference]]:
    """The paired differences of each RUN but the first; see `compare_configurations`."""
    return compare_configurations([Configuration(runs=(each,)) for each in runs], metrics=metrics, seed=seed)


def compare_configurations(
    configurations: Sequence[Configuration], *, metrics: Sequence[str] = (), seed: int = 42
) -> list[list[Difference]]:
    """The paired differences of the metrics that all RUNs tell, for each configuration but the first.

    `metrics` picks some of them, which makes the family smaller that p-values are corrected for.
    """
    names = _names([run for each in configurations for run in each.runs], metrics)
    first, *others = _values(configurations, names)
    if all(len(each.runs) == 1 for each in configurations):
        compared = _over_users(first[0], [runs[0] for runs in others], names, seed)
    else:
        compared = [_one(first, runs, names, seed) for runs in others]
    adjusted = iter(holm([row.p_value for rows in compared for row in rows]))
    return [[replace(row, adjusted=next(adjusted)) for row in rows] for rows in compared]


def _names(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    """The metrics that all RUNs tell, and of these the ones asked for."""
    told = [name for name in runs[0].facts["metrics"] if all(name in run.facts["metrics"] for run in runs)]
    unknown = [name for name in asked if name not in told]
    if unknown:
        raise SettingsError(
            f"metrics = {', '.join(asked)}: not every RUN tells {', '.join(unknown)}. Expected some of "
            f"{', '.join(told)}; rank with another --top-k for others."
        )
    return [name for name in told if name in asked] if asked else told


def _values(configurations: Sequence[Configuration], names: Sequence[str]) -> list[list[FloatArray]]:
    """Each RUN as (users, metrics), grouped by configuration."""
    positions = iter(paired_positions([run for each in configurations for run in each.runs]))
    return [[per_user(next(positions), names) for _ in each.runs] for each in configurations]


def _one(first: list[FloatArray], other: list[FloatArray], names: Sequence[str], seed: int) -> list[Difference]:
    if len(first) == len(other) == 1:
        return _over_users(first[0], other, names, seed)[0]
    found = compare_over_seeds(first, other)
    values = means(np.mean(first, axis=0)), means(np.mean(other, axis=0))
    return _rows(names, *values, found.differences, found.p_values, found.detectable)


def _over_users(
    first: FloatArray, others: Sequence[FloatArray], names: Sequence[str], seed: int
) -> list[list[Difference]]:
    """Single RUNs side by side, so that all share one set of resamples."""
    differences = np.hstack([other - first for other in others])
    intervals = bootstrap(differences, seed=seed)
    p_values = randomisation_p_values(differences, seed=seed)
    detectable = minimum_detectable(differences)
    parts = [slice(start, start + len(names)) for start in range(0, len(intervals), len(names))]
    return [
        _rows(names, means(first), means(other), intervals[part], p_values[part], detectable[part])
        for other, part in zip(others, parts, strict=True)
    ]


def _rows(
    names: Sequence[str],
    first: Sequence[float],
    other: Sequence[float],
    differences: Sequence[Interval],
    p_values: Sequence[float],
    detectable: Sequence[float],
) -> list[Difference]:
    columns = zip(names, first, other, differences, p_values, detectable, strict=True)
    return [
        Difference(
            metric=name, first=one, other=two, difference=difference, p_value=p, adjusted=p, minimum_detectable=least
        )
        for name, one, two, difference, p, least in columns
    ]


def _noted_once(tables: Sequence[Table]) -> tuple[Table, ...]:
    """Several tables of one kind are explained beneath the last one."""
    nexts = [*(table.note for table in tables[1:]), ""]
    return tuple(
        replace(table, note="" if table.note == after else table.note)
        for table, after in zip(tables, nexts, strict=True)
    )


def _table(first: Configuration, other: Configuration, rows: Sequence[Difference], family: int) -> Table:
    facts = first.runs[0].facts
    names = shown([row.metric for row in rows], first.runs[0])
    several = max(len(first.runs), len(other.runs)) > 1
    test = "Student's t over users and seeds" if several else "paired randomisation test over users"
    return Table(
        title=f"{other.label} - {first.label}, {facts['dataset']}, {users_of(facts)}",
        columns=("metric", first.label, other.label, "difference [95 %]", "p", "p Holm", "detectable"),
        rows=tuple(
            (
                name,
                f"{row.first:.3f}",
                f"{row.other:.3f}",
                f"{row.difference.value:+.3f} [{row.difference.low:+.3f}, {row.difference.high:+.3f}]",
                f"{row.p_value:.4f}",
                f"{row.adjusted:.4f}{'*' if row.found else ' '}",
                f"{row.minimum_detectable:.3f}",
            )
            for name, row in zip(names, rows, strict=True)
        ),
        note=(
            f"p: {test}, two-sided; p Holm: corrected for all {family} comparisons shown, * below {FOUND}. detectable: "
            "the true difference that a 5 % test on these users finds in 80 % of repetitions."
        ),
    )
