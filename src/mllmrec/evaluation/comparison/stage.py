"""The stage `compare`: is one configuration better than another, by how much, and how sure is that?

Every metric of every configuration is compared with the first one user by user. All comparisons shown are one family:
Holm's correction keeps the chance of even one false find in it at 5 %, and a difference counts as found when its
corrected p-value is below that. Where it isn't, the minimum detectable difference says how small a difference these
users could have shown at all.

One RUN against one RUN: users are resampled for the interval and the signs of their differences for the p-value.
Where either side has several seeds, the seeds are a level of their own (`statistics.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from mllmrec.errors import SettingsError
from mllmrec.evaluation.comparison.pairing import Configuration, paired_positions, read_configuration
from mllmrec.evaluation.comparison.statistics import (
    ALPHA,
    Interval,
    PairedDifference,
    compare_over_seeds,
    corrected,
    paired_differences,
)
from mllmrec.evaluation.comparison.tables import shown, users_of
from mllmrec.evaluation.metrics import FloatArray, means, per_user
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import Summary, Table
from mllmrec.settings.evaluation import CompareSettings
from mllmrec.storage.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """One metric of the first configuration and of another, with the paired difference other - first."""

    metric: str
    first: float
    other: float
    difference: PairedDifference

    @property
    def facts(self) -> dict[str, Any]:
        """The figures under the names that summaries have for them."""
        difference = self.difference
        return {
            "metric": self.metric,
            "first": self.first,
            "other": self.other,
            "difference": asdict(difference.interval),
            "p_value": difference.p,
            "adjusted": difference.p_holm,
            "minimum_detectable": difference.detectable,
        }


def run(settings: CompareSettings, workspace: Workspace) -> Summary:
    """Compare RUN folders, given by path or by path under the root, with the first; commas join seeds."""
    configurations = [read_configuration(words, workspace) for words in settings.runs]
    compared = compare_configurations(configurations, metrics=settings.metrics, seed=settings.seed)
    first, others = configurations[0], configurations[1:]
    pairs = list(zip(others, compared, strict=True))
    family = sum(map(len, compared))
    held = sum(row.difference.holds for rows in compared for row in rows)
    return Summary(
        headline=(
            f"Compared {', '.join(other.label for other in others)} with {first.label} on the same "
            f"{first.runs[0].facts['num_users']:,} users: {held} of {family} differences hold after Holm's correction."
        ),
        tables=_noted_once([_table(first, other, rows, family) for other, rows in pairs]),
        facts={",".join(str(run.folder) for run in other.runs): [row.facts for row in rows] for other, rows in pairs},
    )


def compare(runs: Sequence[Run], *, metrics: Sequence[str] = (), seed: int = 42) -> list[list[MetricComparison]]:
    """The comparisons of each RUN but the first with the first; see `compare_configurations`."""
    return compare_configurations([Configuration(runs=(run,)) for run in runs], metrics=metrics, seed=seed)


def compare_configurations(
    configurations: Sequence[Configuration], *, metrics: Sequence[str] = (), seed: int = 42
) -> list[list[MetricComparison]]:
    """A row for each metric that all RUNs report, for each configuration but the first.

    All rows together are the family that p-values are corrected for; `metrics` picks some of them, which makes the
    family smaller. Raises SettingsError for a metric that a RUN doesn't report and DataError for RUNs that don't answer
    the same questions.
    """
    names = _names([run for configuration in configurations for run in configuration.runs], metrics)
    first, *others = _values(configurations, names)
    if all(len(configuration.runs) == 1 for configuration in configurations):
        alone = _over_users(first[0], [values[0] for values in others], seed)
    else:
        alone = [_difference(first, values, seed) for values in others]
    family = iter(corrected([difference for differences in alone for difference in differences]))
    return [_rows(names, first, other, list(islice(family, len(names)))) for other in others]


def _names(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    """The metrics that all RUNs report, and of these the ones asked for."""
    common = [name for name in runs[0].facts["metrics"] if all(name in run.facts["metrics"] for run in runs)]
    unknown = [name for name in asked if name not in common]
    if unknown:
        raise SettingsError(
            f"metrics = {', '.join(asked)}: not every RUN tells {', '.join(unknown)}. Expected some of "
            f"{', '.join(common)}; rank with another --top-k for others."
        )
    return [name for name in common if name in asked] if asked else common


def _values(configurations: Sequence[Configuration], names: Sequence[str]) -> list[list[FloatArray]]:
    """Each RUN as (users, metrics), grouped by configuration."""
    positions = iter(paired_positions([run for configuration in configurations for run in configuration.runs]))
    return [[per_user(next(positions), names) for _ in configuration.runs] for configuration in configurations]


def _difference(first: list[FloatArray], other: list[FloatArray], seed: int) -> list[PairedDifference]:
    """The differences of two configurations, one for each metric."""
    if len(first) == len(other) == 1:
        return _over_users(first[0], other, seed)[0]
    return compare_over_seeds(first, other)


def _over_users(first: FloatArray, others: Sequence[FloatArray], seed: int) -> list[list[PairedDifference]]:
    """Single RUNs side by side, so that all share one set of resamples."""
    differences = iter(paired_differences(np.hstack([other - first for other in others]), seed=seed))
    return [list(islice(differences, other.shape[1])) for other in others]


def _rows(
    names: Sequence[str], first: list[FloatArray], other: list[FloatArray], differences: Sequence[PairedDifference]
) -> list[MetricComparison]:
    """A row for each metric, with the means over users and seeds."""
    columns = zip(names, means(np.mean(first, axis=0)), means(np.mean(other, axis=0)), differences, strict=True)
    return [
        MetricComparison(metric=name, first=one, other=two, difference=difference)
        for name, one, two, difference in columns
    ]


def _noted_once(tables: Sequence[Table]) -> tuple[Table, ...]:
    """Several tables of one kind are explained beneath the last one."""
    nexts = [*(table.note for table in tables[1:]), ""]
    return tuple(
        replace(table, note="" if table.note == after else table.note)
        for table, after in zip(tables, nexts, strict=True)
    )


def _table(first: Configuration, other: Configuration, rows: Sequence[MetricComparison], family: int) -> Table:
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
                _in_cell(row.difference.interval),
                f"{row.difference.p:.4f}",
                f"{row.difference.p_holm:.4f}{'*' if row.difference.holds else ' '}",
                f"{row.difference.detectable:.3f}",
            )
            for name, row in zip(names, rows, strict=True)
        ),
        note=(
            f"p: {test}, two-sided; p Holm: corrected for all {family} comparisons shown, * below {ALPHA}. detectable: "
            "the true difference that a 5 % test on these users finds in 80 % of repetitions."
        ),
    )


def _in_cell(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
