"""From the chunks that processes have ranked to one RUN.

Each process of a launch, and each shard, appends to a log of its own. Whoever finds all chunks there writes the RUN and
drops the logs; it holds a lock meanwhile, so that of two shards which finish at the same instant one joins and the
other sees that it is done.

Ranking one chunk of users: by exact scores, or by answers that the model writes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.data.prompts import parse, parse_list
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.comparison.tables import results_table
from mllmrec.evaluation.metrics import Position
from mllmrec.evaluation.ranking.cutoffs import finished_run, normalised
from mllmrec.evaluation.ranking.models import ModelChoice
from mllmrec.evaluation.ranking.rankings import position_of, ranking_of, ranking_of_answers
from mllmrec.evaluation.ranking.runs import Run, write_run
from mllmrec.launch import rank_and_size
from mllmrec.models.base import ScoringTask, TextGenerator
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker
from mllmrec.records import Ranking, RankingExample, Summary
from mllmrec.settings.evaluation import EvaluateSettings, ModelRunSettings
from mllmrec.storage.locks import holding, locked, owner_of
from mllmrec.storage.log_lines import read_records
from mllmrec.storage.manifests import Manifest

CHUNK_USERS = 64
Chunks = Mapping[int, Mapping[str, Any]]

RankChunk = Callable[[Sequence[RankingExample]], list[dict[str, Any]]]
"""Rows in the order of the examples: {scores, tokens} of all candidates, or {answers, dropped}."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model, one candidate file, one RUN folder.

    `examples` are those of the file that are ranked, `num_lists` counts all; `started` is the `time.monotonic()` at
    which the stage began.
    """

    settings: EvaluateSettings
    choice: ModelChoice
    candidates: Path
    inputs: Mapping[str, str]
    examples: Sequence[RankingExample]
    num_lists: int
    folder: Path
    started: float

    @property
    def num_chunks(self) -> int:
        return -(-len(self.examples) // CHUNK_USERS)

    def chunk(self, index: int) -> Sequence[RankingExample]:
        return self.examples[index * CHUNK_USERS : (index + 1) * CHUNK_USERS]

    @property
    def logs(self) -> Path:
        return logs_of(self.folder, self.settings, self.inputs)


def logs_of(folder: Path, settings: EvaluateSettings, inputs: Mapping[str, str]) -> Path:
    """What the names of all logs of a RUN begin with: they hold a short hash of all that decides the scores.

    An interrupted run goes on only from logs of its own making.
    """
    decisive = settings.result_settings() | {"top_k": settings.num_answers}
    what = json.dumps([decisive, dict(inputs)], sort_keys=True)
    return folder / f"rankings.{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def clear(folder: Path, settings: EvaluateSettings, inputs: Mapping[str, str]) -> None:
    """Remove what a process that was killed after the manifest left of a finished RUN; nothing where that can't be."""
    logs = logs_of(folder, settings, inputs)
    with suppress(OSError, ArtifactError), locked(folder):
        for path in folder.glob(f"{logs.name}.*.partial.jsonl"):
            if owner_of(path) is None:
                path.unlink(missing_ok=True)


def join(job: Job, mine: range) -> Summary:
    """Write the RUN, unless chunks are left to other shards or another process was faster; `mine` are this process's.

    Raises ArtifactError when a chunk is missing that no shard is there for, or when another process has made the RUN in
    another way meanwhile.
    """
    headline = f"Ranked the candidates of {len(job.examples):,} users with {job.choice.name}: {job.folder}"
    if rank_and_size()[0]:
        return Summary(headline=headline, artifact=job.folder)
    shard = f"Shard {job.settings.shard} is ranked; " if job.settings.shard else ""
    with locked(job.folder / "rankings.jsonl", wait=True):
        chunks = read_chunks(job.logs)
        missing = [index for index in range(job.num_chunks) if index not in chunks]
        if not missing:
            with holding(job.folder):
                there: Run | None = _made(job, job.settings) or _write(job, chunks)
            for path in job.folder.glob("rankings.*.partial.jsonl"):
                path.unlink(missing_ok=True)
            return _summary(headline, there)
        if not chunks.keys() >= set(mine) and Manifest.read(job.folder) is not None:
            there = _made(job, job.settings.model_copy(update={"overwrite": False}))
            return _summary(f"{shard}another process has joined what was ranked: {job.folder}", there)
        if shard:
            return Summary(headline=f"{shard}{len(missing)} chunks are left to other shards.")
        raise ArtifactError(
            f"{job.folder} lacks {len(missing)} of {job.num_chunks} chunks of users (first: chunk {missing[0]}). "
            "Every shard must be ranked; start the same command again."
        )


def read_chunks(logs: Path) -> dict[int, dict[str, Any]]:
    """The chunks that all processes have finished, by index; `logs` is what the names of their logs begin with.

    A line without an end is passed over: its process was killed, or is writing it.
    """
    chunks: dict[int, dict[str, Any]] = {}
    for path in sorted(logs.parent.glob(f"{logs.name}.*.partial.jsonl")):
        chunks |= {int(row["chunk"]): row for row in read_records(path, "chunk")}
    return chunks


def _made(job: Job, settings: EvaluateSettings) -> Run | None:
    """The RUN when another process has made it meanwhile; an ArtifactError when it did so in another way."""
    return finished_run(job.folder, settings, job.inputs, answers=settings.num_answers)


def _summary(headline: str, run: Run | None) -> Summary:
    assert run is not None, "a RUN with a manifest is finished"
    return Summary(headline=headline, artifact=run.folder, tables=(results_table([run]),))


def _write(job: Job, chunks: Chunks) -> Run:
    """Turn finished chunks into a RUN."""
    examples, settings = job.examples, job.settings
    rows = [row for index in range(job.num_chunks) for row in chunks[index]["rows"]]
    invalid = sum(not row["answers"] for row in rows) if settings.method == "generate" else 0
    details: dict[str, Any] = {"model": job.choice.base}
    details["adapter"] = str(job.choice.adapter) if job.choice.adapter else None
    details["budget"] = dict(sum((Counter(chunk["budget"]) for chunk in chunks.values()), Counter()))
    if settings.method == "score":
        details |= normalised(_positions_per_token(examples, rows), settings.top_k)
    else:
        details["dropped_answers"] = sum(row["dropped"] for row in rows)
    return write_run(
        job.folder,
        _rankings(examples, rows),
        settings,
        name=job.choice.name,
        candidates=job.candidates,
        inputs=job.inputs,
        started=job.started,
        seconds=sum(chunk["seconds"] for chunk in chunks.values()) / rank_and_size()[1],
        method=settings.method,
        invalid_share=invalid / len(rows),
        world_size=rank_and_size()[1],
        num_lists=job.num_lists,
        details=details,
    )


def _rankings(examples: Sequence[RankingExample], rows: Sequence[dict[str, Any]]) -> Iterator[Ranking]:
    for example, row in zip(examples, rows, strict=True):
        yield ranking_of(example, row["scores"]) if "scores" in row else ranking_of_answers(example, row["answers"])


def _positions_per_token(examples: Sequence[RankingExample], rows: Sequence[dict[str, Any]]) -> Iterator[Position]:
    """Where targets come out by scores divided by the number of tokens, which is told beside and never instead."""
    for example, row in zip(examples, rows, strict=True):
        per_token = [score / count for score, count in zip(row["scores"], row["tokens"], strict=True)]
        yield position_of(ranking_of(example, per_token))


def chunk_ranker(settings: EvaluateSettings, ranker: Ranker) -> RankChunk:
    """How `ranker` ranks a chunk by the --method of the settings."""
    return _by_scores(settings, ranker) if settings.method == "score" else _by_answers(settings, ranker)


def _by_scores(settings: ModelRunSettings, ranker: Ranker) -> RankChunk:
    scorer, encoder = ranker.scorer, ranker.encoder

    def rank(examples: Sequence[RankingExample]) -> list[dict[str, Any]]:
        tasks = [scoring_task(example, encoder, settings.score) for example in examples]
        scores = dict(scorer.score(tasks))
        return [
            {"scores": scores[index], "tokens": [len(answer) for answer in task.answers_C]}
            for index, task in enumerate(tasks)
        ]

    return rank


def scoring_task(example: RankingExample, encoder: Encoder, scored: str, hint: str | None = None) -> ScoringTask:
    """The prompt and what is scored of each candidate: its whole answer, or its id alone."""
    if scored == "answer":
        answers = [encoder.answer_ids(item) for item in example.candidates]
    else:
        answers = [encoder.chat.encode(f"[ITEM_{item}]") for item in example.candidates]
    return ScoringTask(prompt_T=encoder.prompt_ids(example, hint), answers_C=answers)


def _by_answers(settings: EvaluateSettings, ranker: Ranker) -> RankChunk:
    longest = max(settings.top_k)

    def rank(examples: Sequence[RankingExample]) -> list[dict[str, Any]]:
        rows = []
        for start in range(0, len(examples), settings.batch):
            batch = examples[start : start + settings.batch]
            texts = _answers(settings, ranker.generator, ranker.encoder, batch, longest)
            rows += [_row(text, example) for text, example in zip(texts, batch, strict=True)]
        return rows

    return rank


def _answers(
    settings: EvaluateSettings,
    generator: TextGenerator,
    encoder: Encoder,
    examples: Sequence[RankingExample],
    longest: int,
) -> list[str]:
    """One text for each example whose lines are its answers, best first: K beams, or one list of K."""
    if settings.list_prompt:
        prompts = [encoder.prompt_ids(example, list_length=longest) for example in examples]
        budget = settings.max_answer_tokens * longest
        return [texts[0] for texts in generator.generate(prompts, num_answers=1, max_new_tokens=budget)]
    prompts = [encoder.prompt_ids(example) for example in examples]
    beams = generator.generate(prompts, num_answers=longest, max_new_tokens=settings.max_answer_tokens)
    named = [[parse(text).item_id for text in texts] for texts in beams]
    return ["\n".join(f"[ITEM_{item}]" for item in items if item is not None) for items in named]


def _row(text: str, example: RankingExample) -> dict[str, Any]:
    answers, dropped = parse_list(text, example.candidates)
    return {"answers": answers, "dropped": dropped}
