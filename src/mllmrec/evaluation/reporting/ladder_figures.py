"""The drawings of a ladder: every RUN with its interval, hit rates at every cut, and whom the best RUNs rank well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mllmrec.data.sequences import read_lines
from mllmrec.evaluation.comparison.statistics import Interval, bootstrap
from mllmrec.evaluation.comparison.tables import ceilings
from mllmrec.evaluation.metrics import Position, means, per_user
from mllmrec.evaluation.probing.groups import bins, count_items, history_lengths
from mllmrec.evaluation.ranking.runs import ranked_examples, ranked_file
from mllmrec.evaluation.reporting.figures import draw_groups, draw_hit_rates, draw_intervals
from mllmrec.evaluation.reporting.page import Figure, FigureRow, Section
from mllmrec.evaluation.reporting.runs import Ladder, Rung
from mllmrec.records import RankingExample
from mllmrec.storage.workspace import Workspace, cached_sha256

LONGEST_CUT = 20
MOST = 3
"""RUNs that are drawn as lines; chance is one more."""
Series = tuple[str, list[tuple[str, Interval]], bool]


def ladder_figures(ladder: Ladder, positions: Sequence[Sequence[Position]]) -> tuple[Figure, ...]:
    """The metric of every RUN with chance and ceilings, and HR@K of a few; `positions` are of each rung's users."""
    metric, facts = ladder.metric, ladder.facts
    rows = [(rung.label, rung.run.intervals[metric], rung.is_model) for rung in ladder.rungs]
    figures = "; ".join(f"{label} {interval}" for label, interval, _ in rows)
    marks = {"chance": facts["chance"][metric]}
    marks |= {row: own[metric].value for row, own in ceilings(ladder.rungs[0].run).items() if metric in own}
    cuts = range(1, min(facts["num_candidates"], LONGEST_CUT) + 1)
    names = [f"HR@{cut}" for cut in cuts]
    chosen = [ladder.rungs.index(rung) for rung in shown_rungs(ladder)]
    curves = [
        (ladder.rungs[number].label, means(per_user(positions[number], names)), ladder.rungs[number].is_model)
        for number in chosen
    ]
    return (
        Figure(
            title=f"{ladder.shown(metric)} with 95 % intervals",
            drawing=draw_intervals(rows, marks, f"intervals-{ladder.key}"),
            text=f"{ladder.shown(metric)}: {figures}; {'; '.join(f'{mark} {at:.3f}' for mark, at in marks.items())}.",
        ),
        Figure(
            title=f"HR@K/{facts['protocol']} at every K",
            drawing=draw_hit_rates(curves, list(cuts), facts["num_candidates"], f"hits-{ladder.key}"),
            text="Share of users whose target is among the first K: "
            + "; ".join(f"{label} {values[0]:.3f} at K = 1" for label, values, _ in curves)
            + ".",
        ),
    )


def shown_rungs(ladder: Ladder) -> list[Rung]:
    """At most `MOST` RUNs in the ladder's order: the strongest baseline, the first and the last model, or a blend.

    Where there are no models, the strongest baselines.
    """
    wanted = [ladder.strongest_baseline, ladder.top, *reversed(ladder.blends), *ladder.models, *reversed(ladder.rungs)]
    numbers = list(dict.fromkeys(ladder.rungs.index(rung) for rung in wanted if rung is not None))[:MOST]
    return [ladder.rungs[number] for number in sorted(numbers)]


def groups_section(ladder: Ladder, positions: Sequence[Sequence[Position]], workspace: Workspace) -> Section | None:
    """The metric by popularity of the target and by length of the history; None where no users can be told apart."""
    rankings = [(ranking.example_id, ranking.target_id) for ranking in ladder.rungs[0].run.rankings()]
    files = workspace.dataset(ladder.facts["dataset"])
    counts = count_items(read_lines(files.split("train")))
    kinds = {"popularity of the target": ("times in train.tsv", [counts[target] for _, target in rankings])}
    examples = questions(ladder.rungs[0], workspace)
    if all(key in examples for key, _ in rankings):
        split = files.split(str(ladder.facts["candidates"]).partition("_")[0])
        lines = read_lines(split) if Path(split).exists() else []
        lengths = history_lengths([examples[key] for key, _ in rankings], lines)
        kinds["length of the history"] = ("items before the target", lengths)
    figures = [
        _figure(ladder, positions, kind, what, values)
        for kind, (what, values) in kinds.items()
        if len(bins(values)) > 1
    ]
    if not figures:
        return None
    return Section(
        key="groups",
        title="Whom it ranks well",
        short="Groups",
        lead=f"The users of `{ladder.facts['candidates']}` in groups of about equal size, each with a 95 % interval "
        "over its users. Groups differ in more than what they are sorted by, and no difference of two is tested here.",
        blocks=(FigureRow(figures=tuple(figures)),),
    )


def _figure(
    ladder: Ladder, positions: Sequence[Sequence[Position]], kind: str, what: str, values: Sequence[int]
) -> Figure:
    groups, values_U = bins(values), np.array(values)
    series: list[Series] = []
    for rung in shown_rungs(ladder):
        metric_U = per_user(positions[ladder.rungs.index(rung)], [ladder.metric])
        points = [
            (_name(low, high), bootstrap(metric_U[(values_U >= low) & (values_U <= high)])[0]) for low, high in groups
        ]
        series.append((rung.label, points, rung.is_model))
    sizes = ", ".join(
        f"{_name(low, high)}: {int(((values_U >= low) & (values_U <= high)).sum()):,} users" for low, high in groups
    )
    listed = "; ".join(
        f"{label} {', '.join(f'{group}: {interval}' for group, interval in points)}" for label, points, _ in series
    )
    return Figure(
        title=f"{ladder.shown(ladder.metric)} by {kind}",
        drawing=draw_groups(series, ladder.facts["chance"][ladder.metric], f"{kind}-{ladder.key}", what=what),
        text=f"{ladder.shown(ladder.metric)} by {what} ({sizes}). {listed}.",
    )


def _name(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def questions(rung: Rung, workspace: Workspace) -> dict[str, RankingExample]:
    """The examples by id, from the candidate file that was ranked; nothing when that is gone or another now."""
    settings = rung.manifest.settings
    path = ranked_file(rung.run, [workspace.root], settings.get("candidates"))
    if path is None or cached_sha256(path) != rung.run.facts["candidates_sha256"]:
        return {}
    examples = ranked_examples(path, rung.run, settings, workspace)
    return {example.example_id: example for example in examples}
