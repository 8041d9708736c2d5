"""What the best possible ranker of the made-up world would reach on the frozen candidate lists.

Written to data/<dataset>/ceiling.json, which tables and the report show beneath their results. Each figure is an
expectation: over lists and histories as they are, weighed by the exact chance of each candidate, given all that the
person chose before, to be the target. Its interval is over users, so a lucky model may come out above it.

Two rankers are told: one that knows the law and sees what a prompt shows, and one that looks at no poster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mllmrec.artifacts import Workspace, sha256, write_json
from mllmrec.data.candidates import read_candidates
from mllmrec.data.sequences import read_lines
from mllmrec.demo.habits import Habits
from mllmrec.demo.oracle import FloatArray, Oracle
from mllmrec.demo.world import World, make_things
from mllmrec.evaluation.metrics import Position, metric_names, per_user
from mllmrec.evaluation.statistics import bootstrap
from mllmrec.locks import sweep_drafts
from mllmrec.records import RankingExample

TOP_K = (3, 5, 10)
ROWS = ("ceiling", "ceiling, titles only")


def write_ceiling(world: World, workspace: Workspace, dataset: str, candidates: Path) -> Path:
    """Write ceiling.json for one candidate file of the test split."""
    examples = read_candidates(candidates)
    past = {line.user_id: line.items[:-1] for line in read_lines(workspace.split(dataset, "test"))}
    names, values = metric_names(TOP_K), expected(world, examples, past)
    path = workspace.ceiling(dataset)
    sweep_drafts([path])
    write_json(
        path,
        {
            "candidates": candidates.stem,
            "candidates_sha256": sha256(candidates),
            "num_users": len(examples),
            "rows": {
                row: {
                    name: {bound: round(value, 6) for bound, value in dataclasses.asdict(interval).items()}
                    for name, interval in zip(names, bootstrap(values[row], seed=world.seed), strict=True)
                }
                for row in ROWS
            },
            "world": dataclasses.asdict(world),
        },
    )
    return path


def expected(
    world: World, examples: list[RankingExample], past: Mapping[str, tuple[str, ...]]
) -> dict[str, FloatArray]:
    """row -> (users, metrics): the expectation of each metric for each user, by the rankings of each row's ranker."""
    things = make_things(world)
    knowing = Oracle(Habits(world, things))
    rankers = dict(zip(ROWS, (knowing, Oracle(Habits(dataclasses.replace(world, poster=0), things))), strict=True))
    before = float(np.mean([len(past[example.user_id]) - len(example.history) for example in examples]))
    gains: dict[str, list[FloatArray]] = {row: [] for row in ROWS}
    for example in examples:
        truth = knowing.chances(past[example.user_id], example.candidates, before=0)
        count = len(example.candidates)
        by_place = per_user([Position(place, 0, count) for place in range(count)], metric_names(TOP_K))
        for row, ranker in rankers.items():
            guess = ranker.chances(example.history, example.candidates, before=before)
            gains[row].append(truth[np.argsort(-guess, kind="stable")] @ by_place)
    return {row: np.array(values) for row, values in gains.items()}
