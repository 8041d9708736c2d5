"""`mllmrec evaluate`: rank frozen candidates with a model.

Users go in chunks of the candidate file. A chunk is batched by itself and its results are appended as one record, so
a crash costs one chunk, any number of processes makes the same batches, and memory doesn't grow with the number of
users. Processes of one launch take every n-th chunk; when all chunks are there, the first process writes the RUN.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mllmrec.artifacts import RecordLog, Workspace
from mllmrec.data.formats import inherited
from mllmrec.data.legacy import load_candidates
from mllmrec.data.prompts import TEMPLATE_VERSION
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError, SettingsError
from mllmrec.evaluation.answering import RankChunk, make_ranker
from mllmrec.evaluation.cutoffs import finished_run, normalised
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.models import ModelChoice, choose_model, open_model
from mllmrec.evaluation.rankings import position_of, ranking_of, ranking_of_answers
from mllmrec.evaluation.runs import Run, candidate_file, run_folder, write_run
from mllmrec.evaluation.tables import results_table
from mllmrec.launch import joined, rank_and_size
from mllmrec.manifests import hash_files
from mllmrec.progress import progress
from mllmrec.records import Ranking, RankingExample, Summary
from mllmrec.settings.ranking import EvaluateSettings

CHUNK_USERS = 64


def run(settings: EvaluateSettings, workspace: Workspace) -> Summary:
    """Write result/<dataset>/<name>/<candidates>/ and show it as a table."""
    started = time.monotonic()
    choice = choose_model(settings, workspace)
    window = _window(settings, choice)
    candidates = candidate_file(settings.model_copy(update={"min_inter": window}), workspace)
    folder = run_folder(settings, workspace, choice.name, candidates, settings.method)
    inputs = _inputs(settings, workspace, candidates, choice)
    if (there := finished_run(folder, settings, inputs, answers=_num_answers(settings))) is not None:
        return _summary(f"{folder} is finished; nothing to do.", there)
    interactions = Interactions.load(workspace, settings.dataset)
    examples = load_candidates(candidates, interactions, window)[: settings.limit]
    _check_window(examples, window, choice, candidates)
    part, parts = (int(number) for number in settings.shard.split("/")) if settings.shard else (1, 1)
    rank, size = rank_and_size()
    logs = folder / f"rankings.{_fingerprint(settings, inputs)}"
    with joined():
        mine = range((part - 1) * size + rank, num_chunks(examples), parts * size)
        _rank_chunks(settings, workspace, choice, interactions, window, examples, mine, logs)
    headline = f"Ranked the candidates of {len(examples)} users with {choice.name}: {folder}"
    if rank:
        return Summary(headline=headline, artifact=folder)
    chunks = read_chunks(logs)
    missing = [index for index in range(num_chunks(examples)) if index not in chunks]
    if missing and settings.shard:
        return Summary(headline=f"Shard {settings.shard} is ranked; {len(missing)} chunks are left to other shards.")
    if missing:
        raise ArtifactError(
            f"{folder} lacks {len(missing)} of {num_chunks(examples)} chunks of users (first: chunk {missing[0]}). "
            "Every shard must be ranked; start the same command again."
        )
    return _summary(headline, _write(settings, folder, choice, candidates, inputs, examples, chunks, started))


def _summary(headline: str, run: Run) -> Summary:
    return Summary(headline=headline, artifact=run.folder, tables=(results_table([run]),))


def num_chunks(examples: Sequence[RankingExample]) -> int:
    return -(-len(examples) // CHUNK_USERS)


def read_chunks(logs: Path) -> dict[int, dict[str, Any]]:
    """The chunks that all processes have finished, by index; `logs` is what the names of their logs begin with.

    A line without an end is passed over: its process was killed, or is writing it.
    """
    chunks: dict[int, dict[str, Any]] = {}
    for path in sorted(logs.parent.glob(f"{logs.name}.*.partial.jsonl")):
        with path.open("rb") as file:
            rows = [json.loads(line) for line in file if line.endswith(b"\n")]
        chunks |= {int(row["chunk"]): row for row in rows}
    return chunks


def _inputs(settings: EvaluateSettings, workspace: Workspace, candidates: Path, choice: ModelChoice) -> dict[str, str]:
    files = hash_files(candidates=candidates, titles=workspace.titles(settings.dataset))
    if settings.captions != "off" and (choice.trained is None or choice.trained.captions):
        files |= hash_files(captions=workspace.captions(settings.dataset))
    return files | {"template": TEMPLATE_VERSION} | choice.hashes()


def _num_answers(settings: EvaluateSettings) -> int:
    """How many answers a user's ranking is made of; 0 when it is made of scores."""
    return max(settings.top_k) if settings.method == "generate" else 0


def _fingerprint(settings: EvaluateSettings, inputs: Mapping[str, str]) -> str:
    """A short hash of all that decides the scores: an interrupted run goes on only from logs of its own making."""
    decisive = settings.result_settings() | {"top_k": _num_answers(settings)}
    what = json.dumps([decisive, dict(inputs)], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:12]


def _window(settings: EvaluateSettings, choice: ModelChoice) -> int:
    """The window the model was trained with, which one asked for must not contradict; else the one asked for."""
    if choice.trained is None:
        return settings.min_inter
    asked = {"window": settings.min_inter} if "min_inter" in settings.model_fields_set else {}
    inherited(choice.trained, asked, choice.name)
    return choice.trained.window


def _check_window(examples: Sequence[RankingExample], window: int, choice: ModelChoice, candidates: Path) -> None:
    """Refuse a candidate file with other windows than the model was trained with."""
    found = {len(example.history) + 1 for example in examples}
    if choice.trained is not None and found != {window}:
        raise SettingsError(
            f"{candidates} asks about windows of {', '.join(map(str, sorted(found)))} items, and {choice.name} was "
            f"trained with windows of {window}. Draw candidates for it: mllmrec candidates --min-inter {window}."
        )


def _rank_chunks(
    settings: EvaluateSettings,
    workspace: Workspace,
    choice: ModelChoice,
    interactions: Interactions,
    window: int,
    examples: Sequence[RankingExample],
    mine: range,
    logs: Path,
) -> None:
    """Rank the chunks of this process that no earlier run has finished, appending each."""
    done = read_chunks(logs)
    todo = [index for index in mine if index not in done]
    if not todo:
        return
    loaded, encoder = open_model(settings, workspace, choice, interactions.catalogue, window)
    rank_chunk: RankChunk = make_ranker(settings, loaded, encoder)
    path = logs.with_name(f"{logs.name}.{mine.start}-of-{mine.step}.partial.jsonl")
    with (
        closing(RecordLog(path, key="chunk")) as log,
        progress(f"ranking with {choice.name}", len(todo) * CHUNK_USERS) as advance,
    ):
        for index in todo:
            begun = time.monotonic()
            rows = rank_chunk(examples[index * CHUNK_USERS : (index + 1) * CHUNK_USERS])
            budget = dict(encoder.renderer.budget)
            encoder.renderer.budget.clear()
            seconds = time.monotonic() - begun
            log.append([{"chunk": str(index), "seconds": seconds, "budget": budget, "rows": rows}])
            advance(CHUNK_USERS)


def _write(
    settings: EvaluateSettings,
    folder: Path,
    choice: ModelChoice,
    candidates: Path,
    inputs: dict[str, str],
    examples: Sequence[RankingExample],
    chunks: dict[int, dict[str, Any]],
    started: float,
) -> Run:
    """Turn finished chunks into a RUN and drop the working logs."""
    rows = [row for index in range(num_chunks(examples)) for row in chunks[index]["rows"]]
    invalid = sum(not row["answers"] for row in rows) if settings.method == "generate" else 0
    details: dict[str, Any] = {"model": choice.base, "adapter": str(choice.adapter) if choice.adapter else None}
    details["budget"] = dict(sum((Counter(chunk["budget"]) for chunk in chunks.values()), Counter()))
    if settings.method == "score":
        details |= normalised(_positions_per_token(examples, rows), settings.top_k)
    else:
        details["dropped_answers"] = sum(row["dropped"] for row in rows)
    run = write_run(
        folder,
        _rankings(examples, rows),
        settings,
        name=choice.name,
        candidates=candidates,
        inputs=inputs,
        started=started,
        seconds=sum(chunk["seconds"] for chunk in chunks.values()) / rank_and_size()[1],
        method=settings.method,
        invalid_share=invalid / len(rows),
        world_size=rank_and_size()[1],
        details=details,
    )
    for path in folder.glob("rankings.*.partial.jsonl"):
        path.unlink(missing_ok=True)
    return run


def _rankings(examples: Sequence[RankingExample], rows: Sequence[dict[str, Any]]) -> Iterator[Ranking]:
    for example, row in zip(examples, rows, strict=True):
        yield ranking_of(example, row["scores"]) if "scores" in row else ranking_of_answers(example, row["answers"])


def _positions_per_token(examples: Sequence[RankingExample], rows: Sequence[dict[str, Any]]) -> Iterator[Position]:
    """Where targets come out by scores divided by the number of tokens, which is told beside and never instead."""
    for example, row in zip(examples, rows, strict=True):
        per_token = [score / count for score, count in zip(row["scores"], row["tokens"], strict=True)]
        yield position_of(ranking_of(example, per_token))
