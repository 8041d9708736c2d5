"""Which traces are assessed, and by which scorer each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mllmrec.artifacts import Workspace
from mllmrec.data.prompts import TEMPLATE_VERSION
from mllmrec.data.sequences import Interactions, is_held_out
from mllmrec.data.trace_records import was_conditioned
from mllmrec.data.traces import TraceJoin, written_traces
from mllmrec.errors import DataError
from mllmrec.reasoning.prediction import Lists, PredictionJudge
from mllmrec.settings.assess import AssessSettings


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """The traces to assess, by `users`: example id -> user, in the order of the file and up to --limit.

    `lengths` are the items of their windows; `counts` tells of all records of the file by fate.
    """

    traces: TraceJoin
    interactions: Interactions
    are_refined: bool
    users: Mapping[str, str]
    lengths: frozenset[int]
    counts: Mapping[str, int]

    @classmethod
    def read(cls, settings: AssessSettings, workspace: Workspace) -> Subjects:
        """Join the file's traces to the train split; those of validation users, whom nothing trains on, stay out.

        Raises DataError when own records are stale, or nothing is left.
        """
        path = written_traces(workspace, settings.dataset)
        interactions = Interactions.load(workspace, settings.dataset)
        traces = TraceJoin(path, interactions)
        are_refined = path == workspace.refined_cot(settings.dataset)
        users, lengths, found = dict[str, str](), set[int](), Counter[str]()
        for trace, record in traces:
            if interactions.held_out and is_held_out(trace.user_id):
                found["held_out"] += 1
            elif settings.limit is None or len(users) < settings.limit:
                users[trace.example_id] = trace.user_id
                lengths.add(len(trace.history) + 1)
                found["answer_conditioned"] += was_conditioned(record, refined=are_refined)
        counts = dict(traces.counts + found)
        if not users:
            raise DataError(
                f"{path}: none of its traces belongs to a window of the train split ({counts or 'it is empty'}). "
                "Expected what `mllmrec pseudo-cot` wrote of the same train.tsv; write them again with it."
            )
        return cls(
            traces=traces,
            interactions=interactions,
            are_refined=are_refined,
            users=users,
            lengths=frozenset(lengths),
            counts=counts,
        )


@dataclass(frozen=True, kw_only=True)
class Share:
    """The traces that one scorer judges; `open` loads it, and is None where there is no scorer."""

    keys: frozenset[str]
    open: Callable[[], PredictionJudge] | None


def shares_of(settings: AssessSettings, workspace: Workspace, subjects: Subjects) -> tuple[list[Share], dict[str, str]]:
    """A share for each scorer, and the hashes of the scorers. Without scorers one share holds all.

    Raises SettingsError when every scorer saw some user, or was trained with other windows.
    """
    if not settings.scorer:
        return [Share(keys=frozenset(subjects.users), open=None)], {}
    from mllmrec.reasoning.scorers import FoldScorer, assign, check_window, choose_scorers, open_scorer

    scorers = choose_scorers(settings, workspace)
    for length in subjects.lengths:
        check_window(scorers, length)
    chosen = assign(scorers, subjects.users.values())
    lists = Lists(orders=settings.orders, num_neg=settings.num_neg, seed=settings.seed)

    def opened_by(scorer: FoldScorer) -> Callable[[], PredictionJudge]:
        def opened() -> PredictionJudge:
            model, encoder = open_scorer(settings, workspace, scorer, subjects.interactions.catalogue)
            return PredictionJudge(model, encoder, subjects.interactions, lists)

        return opened

    shares = [
        Share(
            keys=frozenset(key for key, user in subjects.users.items() if chosen[user] is scorer),
            open=opened_by(scorer),
        )
        for scorer in scorers
    ]
    hashes = {role: value for scorer in scorers for role, value in scorer.hashes().items()}
    return shares, hashes | {"template": TEMPLATE_VERSION}
