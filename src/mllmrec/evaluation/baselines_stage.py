"""The stage `baselines`: one RUN for each baseline, on the candidate file that the model is evaluated on.

For the test split they learn from all of train.tsv, held-out users included; for the validation split from the same
lines without the validation targets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mllmrec.artifacts import Workspace
from mllmrec.data.legacy import load_candidates
from mllmrec.data.sequences import Interactions, Line
from mllmrec.errors import DataError
from mllmrec.evaluation.baselines import Baseline, Markov, Popularity, Random
from mllmrec.evaluation.cutoffs import finished_run
from mllmrec.evaluation.rankings import ranking_of
from mllmrec.evaluation.runs import Run, candidate_file, run_folder, write_run
from mllmrec.evaluation.tables import results_table
from mllmrec.manifests import hash_files
from mllmrec.progress import progress
from mllmrec.records import RankingExample, Split, Summary
from mllmrec.settings.evaluation import BaselinesSettings

REGISTRY: dict[str, Callable[[int], Baseline]] = {
    "random": Random,
    "popularity": lambda _seed: Popularity(),
    "markov": lambda _seed: Markov(),
}


def run(settings: BaselinesSettings, workspace: Workspace) -> Summary:
    """Rank the candidates with each named baseline; RUNs that are already there are read."""
    candidates = candidate_file(settings, workspace)
    interactions = Interactions.load(workspace, settings.dataset)
    examples = load_candidates(candidates, interactions, settings.min_inter)[: settings.limit]
    split = split_of(examples, candidates)
    fitted_on = {"train": workspace.split(settings.dataset, "train")}
    if split == "valid":
        fitted_on["valid"] = workspace.split(settings.dataset, "valid")
    inputs = hash_files(candidates=candidates, **fitted_on)

    runs, lines, num_there = [], list[Line](), 0
    for name in settings.names:
        own = settings.model_copy(update={"names": (name,)})
        folder = run_folder(own, workspace, name, candidates)
        if (there := finished_run(folder, own, inputs)) is not None:
            num_there += 1
            runs.append(there)
            continue
        lines = lines or fit_lines(interactions, split)
        runs.append(_rank(REGISTRY[name](settings.seed), lines, examples, own, folder, candidates, inputs))

    known = {0: "", len(runs): "; nothing to do, all were there"}.get(num_there, f"; {num_there} were there")
    return Summary(
        headline=f"Ranked the candidates of {len(examples)} users with {', '.join(settings.names)}{known}.",
        artifact=workspace.results(settings.dataset),
        tables=(results_table(runs),),
        facts={"runs": [str(each.folder) for each in runs]},
    )


def split_of(examples: Sequence[RankingExample], candidates: Path) -> Split:
    """The split of all examples. A baseline is no judge of the train split, where it has counted the answers."""
    splits = {example.split for example in examples}
    if len(splits) > 1 or "train" in splits:
        raise DataError(
            f"{candidates} holds examples of {' and '.join(sorted(splits))}. Expected test or valid alone: baselines "
            "are fitted on train and have seen its targets. Make a file with `mllmrec candidates --split test`."
        )
    return splits.pop()


def fit_lines(interactions: Interactions, split: Split) -> list[Line]:
    """What may be counted before ranking `split`."""
    return interactions.train if split == "test" else interactions.fit_lines()


def _rank(
    baseline: Baseline,
    lines: Sequence[Line],
    examples: Sequence[RankingExample],
    settings: BaselinesSettings,
    folder: Path,
    candidates: Path,
    inputs: dict[str, str],
) -> Run:
    started = time.monotonic()
    baseline.fit(lines)
    fitted = time.monotonic()
    rankings = []
    with progress(baseline.name, len(examples)) as advance:
        for example in examples:
            rankings.append(ranking_of(example, baseline.score(example)))
            advance(1)
    return write_run(
        folder,
        rankings,
        settings,
        name=baseline.name,
        candidates=candidates,
        inputs=inputs,
        started=started,
        seconds=time.monotonic() - fitted,
        details={"fit_seconds": round(fitted - started, 3), "fit_lines": len(lines)},
    )
