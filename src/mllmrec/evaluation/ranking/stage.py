"""`mllmrec evaluate`: rank frozen candidates with a model.

Users are ranked in chunks of the candidate file. A chunk is batched by itself and appended to the working log as one
record, so a crash costs one chunk, any number of processes makes the same batches, and memory doesn't grow with the
number of users. Each process of a launch ranks every n-th chunk; when all are there, the first one writes the RUN.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mllmrec.data.candidates.drawing import sliced
from mllmrec.data.candidates.files import ranked_lists
from mllmrec.data.prompts import TEMPLATE_VERSION, inherited
from mllmrec.data.sequences import Interactions
from mllmrec.errors import SettingsError
from mllmrec.evaluation.comparison.tables import results_table
from mllmrec.evaluation.ranking.chunks import (
    RankChunk,
    RankingJob,
    chunk_ranker,
    clear,
    join,
    note_earlier_versions,
    refuse_others,
)
from mllmrec.evaluation.ranking.cutoffs import finished_run
from mllmrec.evaluation.ranking.models import ModelChoice, choose_model, open_ranker
from mllmrec.evaluation.ranking.runs import candidate_file, run_folder, slice_input, write_raw_rankings
from mllmrec.launch import WorkShare
from mllmrec.models.chat_templates import template_hash
from mllmrec.models.suitability import within_context
from mllmrec.progress import progress
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.evaluation import EvaluateSettings, ModelRunSettings
from mllmrec.storage.manifests import hash_files
from mllmrec.storage.record_log import open_log
from mllmrec.storage.workspace import Workspace


def run(settings: EvaluateSettings, workspace: Workspace) -> Summary:
    """Write the RUN result/<dataset>/<name>/<candidates>/ and return it as a table.

    Raises ArtifactError when something that is read is missing, or the RUN was made in another way.
    """
    started = time.monotonic()
    choice = choose_model(settings, workspace)
    if choice.trained is None:
        settings = within_context(settings, choice.base)
    window = window_of(settings, choice)
    candidates = candidate_file(settings.model_copy(update={"min_inter": window}), workspace)
    folder = run_folder(settings, workspace, choice.name, candidates, settings.method)
    inputs = run_inputs(settings, workspace, candidates, choice) | slice_input(settings)
    if (finished := finished_run(folder, settings, inputs, answers=settings.num_answers)) is not None:
        if settings.raw_ids:
            write_raw_rankings(folder, workspace, settings.dataset)
        clear(folder, settings, inputs)
        headline = f"{folder} is finished; nothing to do."
        return Summary(headline=headline, artifact=folder, tables=(results_table([finished]),))
    interactions = Interactions.load(workspace, settings.dataset)
    lists = ranked_lists(candidates, interactions, window)
    examples = sliced(lists, settings.limit, settings.seed)
    check_window(examples, window, choice, candidates)
    job = RankingJob(
        settings=settings,
        choice=choice,
        candidates=candidates,
        inputs=inputs,
        examples=examples,
        num_lists=len(lists),
        folder=folder,
        started=started,
    )
    share = WorkShare.of(settings.shard)
    _rank_chunks(job, share, workspace, interactions, window)
    summary = join(job, share)
    if settings.raw_ids:
        write_raw_rankings(folder, workspace, settings.dataset)
    return summary


def run_inputs(
    settings: ModelRunSettings, workspace: Workspace, candidates: Path, choice: ModelChoice
) -> dict[str, str]:
    """Hashes of all that decides the scores besides the settings, by role."""
    dataset = workspace.dataset(settings.dataset)
    files = hash_files(candidates=candidates, titles=dataset.titles)
    if settings.captions != "off" and (choice.trained is None or choice.trained.captions):
        files |= hash_files(captions=dataset.captions)
    return files | {"template": TEMPLATE_VERSION} | template_hash(settings.chat_template) | choice.hashes()


class Windowed(Protocol):
    """Settings with a window, which may have been given or not."""

    @property
    def min_inter(self) -> int: ...

    @property
    def model_fields_set(self) -> set[str]: ...


def window_of(settings: Windowed, choice: ModelChoice) -> int:
    """The items in a window: as the model was trained, else as asked for. Raises SettingsError where these differ."""
    if choice.trained is None:
        return settings.min_inter
    asked = {"window": settings.min_inter} if "min_inter" in settings.model_fields_set else {}
    inherited(choice.trained, asked, choice.name)
    return choice.trained.window


def check_window(examples: Sequence[RankingExample], window: int, choice: ModelChoice, candidates: Path) -> None:
    """Refuse a candidate file without lists, and one with other windows than the model was trained with."""
    if not any(example.candidates for example in examples):
        raise SettingsError(
            f"{candidates} spells out no lists: it asks about the whole catalogue, which `mllmrec baselines` alone "
            "ranks. Expected a list for each user; `mllmrec retrieve --rerank` makes lists of what a retriever finds."
        )
    windows = {len(example.history) + 1 for example in examples}
    if choice.trained is not None and windows != {window}:
        raise SettingsError(
            f"{candidates} asks about windows of {', '.join(map(str, sorted(windows)))} items, and {choice.name} was "
            f"trained with windows of {window}. Draw candidates for it: mllmrec candidates --min-inter {window}."
        )


def _rank_chunks(
    job: RankingJob, share: WorkShare, workspace: Workspace, interactions: Interactions, window: int
) -> None:
    """Rank the chunks of this process that no earlier run has finished, appending each."""
    with open_log(job.log_name, job.header, share) as log:
        refuse_others(job)
        note_earlier_versions(job)
        log.read()
        todo = log.todo(job.keys)
        if not todo:
            return
        ranker = open_ranker(job.settings, workspace, job.choice, interactions.catalogue, window)
        rank_chunk: RankChunk = chunk_ranker(job.settings, ranker)
        with progress(f"ranking with {job.choice.name}", sum(len(job.chunk(key)) for key in todo)) as advance:
            for key in todo:
                begun, examples = time.monotonic(), job.chunk(key)
                rows = rank_chunk(examples)
                budget = dict(ranker.encoder.renderer.budget)
                ranker.encoder.renderer.budget.clear()
                log.append(key, "row", {"seconds": time.monotonic() - begun, "budget": budget, "rows": rows})
                advance(len(examples))
