"""The stage `baselines`: one RUN for each baseline, on the candidate file that the model is evaluated on.

A baseline that reads histories makes two RUNs: `itemknn` sees the model's window, `itemknn-full` all that came before
the target; there is no second one where no example has more than its window. For the test split a baseline learns from
all of train.tsv, held-out users included; for the validation split from the same lines without the validation targets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mllmrec.data.candidates.drawing import sliced
from mllmrec.data.candidates.files import ranked_lists
from mllmrec.data.candidates.protocols import protocol_of
from mllmrec.data.sequences import Interactions
from mllmrec.errors import DataError, SettingsError
from mllmrec.evaluation.baselines.base import with_full_history
from mllmrec.evaluation.baselines.families import FAMILIES, Fitting, check_installed
from mllmrec.evaluation.baselines.fitting import Fitted, fit_inputs, lines_for, open_baseline
from mllmrec.evaluation.comparison.tables import results_table
from mllmrec.evaluation.ranking.cutoffs import finished_run
from mllmrec.evaluation.ranking.runs import Run, candidate_file, run_folder, slice_input, write_raw_rankings, write_run
from mllmrec.evaluation.retrieval.catalogue import check_cuts, ranked
from mllmrec.progress import note, progress
from mllmrec.records import RankingExample, Split, Summary
from mllmrec.settings.evaluation import BaselinesSettings
from mllmrec.storage.locks import locked
from mllmrec.storage.manifests import hash_files
from mllmrec.storage.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class BaselineQuestion:
    """The examples that are ranked, with the window and with all that is known before the target.

    `num_lists` counts all examples of the file.
    """

    candidates: Path
    split: Split
    window: Sequence[RankingExample]
    full: Sequence[RankingExample]
    num_lists: int

    def histories(self, name: str, history: str) -> dict[str, Sequence[RankingExample]]:
        """RUN name -> examples, for what was asked for and makes a difference."""
        reads = FAMILIES[name].reads_history and self.full != self.window
        both = {name: self.window} | ({f"{name}-full": self.full} if reads else {})
        wanted = {"both": set(both), "window": {name}, "full": {f"{name}-full"} if reads else {name}}[history]
        return {run_name: examples for run_name, examples in both.items() if run_name in wanted}


def run(settings: BaselinesSettings, workspace: Workspace) -> Summary:
    """Rank the candidates with each named baseline; RUNs that are already there are read."""
    check_installed(settings.names)
    candidates = candidate_file(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    question = _question(settings, interactions, candidates)
    fitting = Fitting(
        workspace=workspace,
        dataset=settings.dataset,
        interactions=interactions,
        window=max(len(example.history) for example in question.window) + 1,
        seed=settings.seed,
        embedder=settings.embedder,
    )
    runs, num_there = [], 0
    names = rankable(settings.names, candidates)
    for name in names:
        made, there = _runs_of(name, question, fitting, settings)
        runs += made
        num_there += there
    for made_run in runs if settings.raw_ids else ():
        write_raw_rankings(made_run.folder, workspace, settings.dataset)

    known = {0: "", len(runs): "; nothing to do, all were there"}.get(num_there, f"; {num_there} were there")
    return Summary(
        headline=f"Ranked the candidates of {len(question.window):,} users with {', '.join(names)}{known}.",
        artifact=workspace.dataset(settings.dataset).results,
        tables=(results_table(runs),),
        facts={"runs": [str(made.folder) for made in runs]},
    )


def rankable(names: Sequence[str], candidates: Path) -> list[str]:
    """The baselines that may be ranked on a file: whoever chose its negatives may not."""
    chooser = protocol_of(candidates).chooser
    others = [name for name in names if name != chooser]
    if not others:
        raise SettingsError(
            f"{chooser} chose the negatives of {candidates.name}, so that its own figures on them would say nothing. "
            "Name other baselines with --names, or rank it on other lists."
        )
    return others


def split_of(examples: Sequence[RankingExample], candidates: Path) -> Split:
    """The split of all examples. A baseline is no judge of the train split, where it has counted the answers."""
    splits = {example.split for example in examples}
    if len(splits) > 1 or "train" in splits:
        raise DataError(
            f"{candidates} holds examples of {' and '.join(sorted(splits))}. Expected test or valid alone: baselines "
            "are fitted on train and have seen its targets. Make a file with `mllmrec candidates --split test`."
        )
    return splits.pop()


def _question(settings: BaselinesSettings, interactions: Interactions, candidates: Path) -> BaselineQuestion:
    lists = ranked_lists(candidates, interactions, settings.min_inter)
    split = split_of(lists, candidates)
    examples = sliced(lists, settings.limit, settings.seed)
    check_cuts(settings.top_k, examples)
    full = with_full_history(examples, interactions.lines(split))
    return BaselineQuestion(candidates=candidates, split=split, window=examples, full=full, num_lists=len(lists))


def _runs_of(
    name: str, question: BaselineQuestion, fitting: Fitting, settings: BaselinesSettings
) -> tuple[list[Run], int]:
    """The RUNs of one baseline, and how many of them were there. It is fitted only when one is missing."""
    own = settings.model_copy(update={"names": (name,)})
    fitted_on = {"train": "train", **({"valid": "valid"} if question.split == "valid" else {})}
    files = {role: fitting.workspace.dataset(fitting.dataset).split(split) for role, split in fitted_on.items()}
    inputs = hash_files(candidates=question.candidates, **files) | fit_inputs(name, fitting) | slice_input(settings)
    runs, num_there, fitted = [], 0, None
    for run_name, examples in question.histories(name, settings.history).items():
        folder = run_folder(own, fitting.workspace, run_name, question.candidates)
        with locked(folder):
            if (there := finished_run(folder, own, inputs)) is not None:
                num_there += 1
                runs.append(there)
                continue
            fitted = fitted or _open(name, fitting, question.split)
            runs.append(_rank(fitted, examples, own, run_name, folder, question, fitting, inputs))
    return runs, num_there


def _open(name: str, fitting: Fitting, split: Split) -> Fitted:
    fitted = open_baseline(name, fitting, split)
    if fitted.cached:
        note(f"{name}: fitted before, read from its cache.")
    return fitted


def _rank(
    fitted: Fitted,
    examples: Sequence[RankingExample],
    settings: BaselinesSettings,
    name: str,
    folder: Path,
    question: BaselineQuestion,
    fitting: Fitting,
    inputs: dict[str, str],
) -> Run:
    started = time.monotonic()
    rankings = []
    with progress(name, len(examples)) as advance:
        # The history that was read is no part of the record, so window and full history make the same examples.
        for ranking in ranked(fitted.baseline, examples, fitting.interactions):
            rankings.append(ranking)
            advance(1)
    details = {
        "baseline": fitted.baseline.name,
        "history": "full" if examples is question.full else "window",
        "fit_seconds": round(fitted.fit_seconds, 3),
        "fit_lines": len(lines_for(fitting, question.split)),
    }
    return write_run(
        folder,
        rankings,
        settings,
        name=name,
        candidates=question.candidates,
        inputs=inputs,
        started=started,
        seconds=time.monotonic() - started,
        num_lists=question.num_lists,
        details=details | ({"tuning": asdict(fitted.tuning)} if fitted.tuning else {}),
    )
