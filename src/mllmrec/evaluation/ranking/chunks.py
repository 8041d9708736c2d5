"""Users of a candidate file ranked in chunks, and the RUN that is written when all chunks are there.

A chunk of 64 users is one record of the working log `rankings.<digest>`, whose digest stands for all that decides the
scores: an interrupted RUN goes on only from work of its own settings and inputs. The processes of a launch and the
shards of a RUN each append to a log of their own. Whoever finds that no chunk is left writes the RUN and drops the
logs, under a lock: of two shards that finish at the same instant one writes the RUN and the other says so.

The second half ranks one chunk: by exact scores, or by answers that the model writes. Ranking behind thoughts is in
thoughts.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
from mllmrec.evaluation.ranking.thoughts import rank_after_thoughts, thought_figures, write_thoughts
from mllmrec.launch import WorkShare, rank_and_size
from mllmrec.models.base import ScoringTask, TextGenerator
from mllmrec.models.chat import Encoder
from mllmrec.models.ranker import Ranker
from mllmrec.progress import note
from mllmrec.records import Ranking, RankingExample, Summary
from mllmrec.settings.evaluation import EvaluateSettings, ModelRunSettings
from mllmrec.storage.locks import holding, locked, owner_of
from mllmrec.storage.log_lines import header_of, log_of_its_own, log_paths
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.record_log import RecordLog

CHUNK_USERS = 64

RankChunk = Callable[[Sequence[RankingExample]], list[dict[str, Any]]]
"""Rows in the order of the examples: {scores, tokens} of all candidates, with their thoughts, or {answers, dropped}."""


@dataclass(frozen=True, kw_only=True)
class RankingJob:
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
    def keys(self) -> list[str]:
        """The keys of all chunks in the order of their users."""
        return [str(index) for index in range(-(-len(self.examples) // CHUNK_USERS))]

    def chunk(self, key: str) -> Sequence[RankingExample]:
        """The examples of one chunk."""
        start = int(key) * CHUNK_USERS
        return self.examples[start : start + CHUNK_USERS]

    @property
    def header(self) -> dict[str, Any]:
        return log_header(self.settings, self.inputs)

    @property
    def log_name(self) -> Path:
        return log_of_its_own(self.folder / "rankings", self.header)


def log_header(settings: EvaluateSettings, inputs: Mapping[str, str]) -> dict[str, Any]:
    """All that decides the scores; of the cut-offs only the number of answers that are asked for."""
    return header_of(settings.result_settings() | {"top_k": settings.num_answers}, inputs)


def clear(folder: Path, settings: EvaluateSettings, inputs: Mapping[str, str]) -> None:
    """Remove what a process that was killed after the manifest left of a finished RUN; nothing where that can't be."""
    name = log_of_its_own(folder / "rankings", log_header(settings, inputs))
    with suppress(OSError, ArtifactError), locked(folder):
        for path in (*log_paths(name), *_logs_of_earlier_versions(name)):
            if owner_of(path) is None and owner_of(path.with_name(path.name.removesuffix(".partial.jsonl"))) is None:
                path.unlink(missing_ok=True)


def refuse_others(job: RankingJob) -> None:
    """Refuse to rank beside a process that fills the same RUN with other settings or inputs."""
    for lock in sorted(job.folder.glob("rankings.*.lock")):
        other = lock.with_suffix("")
        own = other == job.log_name or (other.stem == job.log_name.name and other.suffix[1:].isdigit())
        if other.name != "rankings.jsonl" and not own and (owner := owner_of(other)) is not None:
            raise ArtifactError(
                f"{job.folder} is being made with other settings or inputs by {owner}. Expected one way of ranking at "
                "a time; wait for it, or end it and start again: nothing it has finished is lost."
            )


def note_earlier_versions(job: RankingJob) -> None:
    """Say that what an earlier version of the program left of this RUN is ranked again."""
    if logs := _logs_of_earlier_versions(job.log_name):
        names = ", ".join(path.name for path in logs)
        note(f"{job.folder}: an earlier version wrote {names} in another form; the users in it are ranked again.")


def join(job: RankingJob, share: WorkShare) -> Summary:
    """Write the RUN, unless chunks are left to other shards or another process was faster; `share` is this process's.

    Raises ArtifactError when a chunk is missing that no shard is there for, or when another process has made the RUN in
    another way meanwhile.
    """
    headline = f"Ranked the candidates of {len(job.examples):,} users with {job.choice.name}: {job.folder}"
    if rank_and_size()[0]:
        return Summary(headline=headline, artifact=job.folder)
    shard = f"Shard {job.settings.shard} is ranked; " if job.settings.shard else ""
    with locked(job.folder / "rankings.jsonl", wait=True):
        log = RecordLog(job.log_name, job.header, share)
        log.read()
        missing = log.left(job.keys)
        if not missing:
            with holding(job.folder):
                run: Run | None = _made(job, job.settings) or _write(job, log)
            for path in job.folder.glob("rankings.*.partial.jsonl"):
                path.unlink(missing_ok=True)
            return _summary(headline, run)
        if log.todo(job.keys) and Manifest.read(job.folder) is not None:
            run = _made(job, job.settings.model_copy(update={"overwrite": False}))
            return _summary(f"{shard}another process has joined what was ranked: {job.folder}", run)
        if shard:
            return Summary(headline=f"{shard}{len(missing)} chunks are left to other shards.")
        raise ArtifactError(
            f"{job.folder} lacks {len(missing)} of {len(job.keys)} chunks of users (first: chunk {missing[0]}). "
            "Every shard must be ranked; start the same command again."
        )


def chunk_ranker(settings: EvaluateSettings, ranker: Ranker) -> RankChunk:
    """How `ranker` ranks a chunk by the --method of the settings."""
    if settings.thoughts:
        return partial(rank_after_thoughts, settings, ranker)
    return _by_scores(settings, ranker) if settings.method == "score" else _by_answers(settings, ranker)


def scoring_task(example: RankingExample, encoder: Encoder, scored: str, hint: str | None = None) -> ScoringTask:
    """The prompt and what is scored of each candidate: its whole answer, or its id alone."""
    answers = encoder.scored_answers(example, scored)
    return ScoringTask(prompt_T=encoder.prompt_ids(example, hint), answers_C=answers)


def _logs_of_earlier_versions(log_name: Path) -> list[Path]:
    """Logs of the same settings and inputs whose lines were no records yet; they are never read."""
    return sorted(log_name.parent.glob(f"{log_name.name}.*-of-*.partial.jsonl"))


def _made(job: RankingJob, settings: EvaluateSettings) -> Run | None:
    """The RUN when another process has made it meanwhile; an ArtifactError when it did so in another way."""
    return finished_run(job.folder, settings, job.inputs, answers=settings.num_answers)


def _summary(headline: str, run: Run | None) -> Summary:
    assert run is not None, "a RUN with a manifest is finished"
    return Summary(headline=headline, artifact=run.folder, tables=(results_table([run]),))


def _write(job: RankingJob, log: RecordLog) -> Run:
    """Turn the chunks of a log, which holds them all, into a RUN."""
    settings = job.settings
    seconds, num_invalid, num_dropped, budget = 0.0, 0, 0, Counter[str]()
    for _, chunk in log.rows(job.keys):
        seconds += chunk["seconds"]
        budget += Counter(chunk["budget"])
        if settings.method == "generate":
            num_invalid += sum(not row["answers"] for row in chunk["rows"])
            num_dropped += sum(row["dropped"] for row in chunk["rows"])
    details: dict[str, Any] = {"model": job.choice.base}
    details["adapter"] = str(job.choice.adapter) if job.choice.adapter else None
    details["budget"] = dict(budget)
    if settings.thoughts:
        rows = (row for _, row in _rows(job, log))
        details["thoughts"] = thought_figures(rows, settings.thoughts, rank_and_size()[1])
    elif settings.method == "score":
        details |= normalised(_positions_per_token(job, log), settings.top_k)
    else:
        details["dropped_answers"] = num_dropped
    if settings.thoughts:
        write_thoughts(job.folder, _rows(job, log))
    return write_run(
        job.folder,
        _rankings(job, log),
        settings,
        name=job.choice.name,
        candidates=job.candidates,
        inputs=job.inputs,
        started=job.started,
        seconds=seconds / rank_and_size()[1],
        method=settings.method,
        invalid_share=num_invalid / len(job.examples),
        world_size=rank_and_size()[1],
        num_lists=job.num_lists,
        details=details,
    )


def _rows(job: RankingJob, log: RecordLog) -> Iterator[tuple[RankingExample, dict[str, Any]]]:
    """Every example with what was ranked of it, one chunk in memory at a time."""
    for key, chunk in log.rows(job.keys):
        yield from zip(job.chunk(key), chunk["rows"], strict=True)


def _rankings(job: RankingJob, log: RecordLog) -> Iterator[Ranking]:
    for example, row in _rows(job, log):
        yield ranking_of(example, row["scores"]) if "scores" in row else ranking_of_answers(example, row["answers"])


def _positions_per_token(job: RankingJob, log: RecordLog) -> Iterator[Position]:
    """Where targets come out by scores divided by the number of tokens: reported beside the metrics, never instead."""
    for example, row in _rows(job, log):
        per_token = [score / count for score, count in zip(row["scores"], row["tokens"], strict=True)]
        yield position_of(ranking_of(example, per_token))


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
