"""`mllmrec probe`: what does the model go by?

The users of a candidate file, or a fixed slice of them, are asked their own question and then the same question changed
in one respect: candidates turned around, histories shuffled, cut or taken away, captions of other items, titles without
meaning, a hint more. Each answer is a set of exact scores, so a difference is the model's and no sampling's. Chunks of
users under one condition are appended as they are scored; probes.scores.jsonl keeps them, so that more probes, more
users or other cut-offs later ask only what is new. RUN/probes.json is what is told of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.artifacts import Workspace, read_json, read_jsonl, write_json, write_jsonl
from mllmrec.backends.scoring import HuggingFaceScorer
from mllmrec.data.candidate_files import ranked_protocol
from mllmrec.data.sequences import Catalogue
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.models import ModelChoice, open_model
from mllmrec.evaluation.probing.asking import Asker
from mllmrec.evaluation.probing.findings import Study, findings
from mllmrec.evaluation.probing.job import Job, prepare
from mllmrec.evaluation.probing.plan import Part
from mllmrec.evaluation.probing.tables import tables
from mllmrec.progress import progress
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.probes import ProbeSettings
from mllmrec.work import Work, open_work


def run(settings: ProbeSettings, workspace: Workspace) -> Summary:
    """Write RUN/probes.json and show it as tables."""
    started = time.monotonic()
    job = prepare(settings, workspace)
    parts = {part.key: part for part in job.plan.parts()}
    keys = list(parts)
    with open_work(job.artifact, settings, job.inputs, lambda: _recall(job.scores)) as work:
        if work.nothing_to_do(keys) and read_json(job.artifact)["asked"] == job.asked:
            return _summary(job, f"{job.artifact} is finished; nothing to do.")
        if todo := [parts[key] for key in work.todo(keys)]:
            asker = open_asker(settings, workspace, job.choice, job.interactions.catalogue, job.window)
            _score(work, asker, todo, job)
        manifest = work.complete(
            keys,
            lambda rows: _write(job, rows),
            started=started,
            counts={"users": len(job.plan.users), "scorings": sum(len(part.examples) for part in parts.values())},
        )
    told = f"Probed {job.choice.name} on {len(job.plan.users):,} users: {job.artifact}"
    return Summary(headline=told, artifact=job.artifact) if manifest is None else _summary(job, told)


def open_asker(
    settings: ProbeSettings, workspace: Workspace, choice: ModelChoice, catalogue: Catalogue, window: int
) -> Asker:
    """Load the model that is probed."""
    loaded, encoder = open_model(settings, workspace, choice, catalogue, window)
    scorer = HuggingFaceScorer(loaded.model, settings.batch_tokens)
    return Asker(scorer, encoder, scored=settings.score, seed=settings.seed)


def _score(work: Work, asker: Asker, todo: Sequence[Part], job: Job) -> None:
    with progress(f"probing {job.choice.name}", sum(len(part.examples) for part in todo)) as advance:
        for part in todo:
            begun = time.monotonic()
            scores = asker.ask(part.condition, part.examples, job.plan.hinted.hints)
            seconds = round(time.monotonic() - begun, 4)
            ids = [example.example_id for example in part.examples]
            row = {"examples": ids, "scores": scores, "seconds": seconds, "budget": asker.take_budget()}
            work.done(part.key, row, {"seconds": seconds})
            advance(len(ids))


def _recall(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a finished artifact; none when its scores are gone, which are then asked for again."""
    if path.exists():
        for row in read_jsonl(path):
            yield row.pop("key"), row


def _write(job: Job, rows: Iterator[tuple[str, dict[str, Any]]]) -> None:
    """Keep all scores, then tell what those asked for say."""
    parts = {part.key: part for part in job.plan.parts()}
    scores: dict[str, list[FloatArray]] = {}
    seconds: dict[str, float] = {}
    budget: dict[str, int] = {}

    def take() -> Iterator[dict[str, Any]]:
        for key, row in rows:
            if (part := parts.get(key)) is not None:
                _check(job, part.examples, row)
                name = part.condition.name
                scores.setdefault(name, []).extend(np.array(own) for own in row["scores"])
                seconds[name] = seconds.get(name, 0.0) + row["seconds"]
                for kind, count in row["budget"].items():
                    budget[kind] = budget.get(kind, 0) + count
            yield {"key": key, **row}

    write_jsonl(job.scores, take())
    study = Study(
        plan=job.plan,
        scores=scores,
        seconds=seconds,
        lines=job.interactions.train if job.plan.users[0].split == "test" else job.interactions.fit_lines(),
        split_lines=job.interactions.lines(job.plan.users[0].split),
        top_k=job.settings.top_k,
        seed=job.settings.seed,
    )
    facts = {
        "dataset": job.settings.dataset,
        "name": job.choice.name,
        "protocol": ranked_protocol(job.candidates),
        "candidates": job.candidates.stem,
        "candidates_sha256": job.inputs["candidates"],
        "model": job.choice.base,
        "adapter": str(job.choice.adapter) if job.choice.adapter else None,
        "num_users": len(job.plan.users),
        "num_lists": job.num_lists,
        "asked": dict(job.asked),
        "budget": budget,
    }
    write_json(job.artifact, facts | findings(study, job.num_lists))


def _check(job: Job, examples: Sequence[RankingExample], row: Mapping[str, Any]) -> None:
    if row["examples"] != [example.example_id for example in examples]:
        raise ArtifactError(
            f"{job.scores} holds scores of other users than {job.candidates} lists. Expected the same ones; score "
            "them again with --overwrite."
        )


def _summary(job: Job, headline: str) -> Summary:
    facts = read_json(job.artifact)
    return Summary(headline=headline, artifact=job.artifact, tables=tables(facts), facts=facts)
