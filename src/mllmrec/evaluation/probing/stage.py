"""`mllmrec probe`: which parts of the prompt does the model use?

The users of a candidate file, or a fixed slice of them, are scored with the plain prompt and then with a prompt that is
changed in one respect: candidates rotated, the history shuffled, cut or removed, captions of other items, titles
masked, a hint added. Scores are exact, so a difference comes from the model and not from sampling. A chunk of users
under one condition is one record of the working log. probes.scores.jsonl keeps all scores, so that more probes, more
users or other cut-offs later score only what is new; RUN/probes.json holds the results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.data.candidates.drawing import sliced
from mllmrec.data.candidates.files import ranked_lists, ranked_protocol
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing.conditions import MASKED, Condition, changed, swapped
from mllmrec.evaluation.probing.findings import Study, findings
from mllmrec.evaluation.probing.plan import ProbeChunk, ProbePlan, hints_of, make_plan, trace_file
from mllmrec.evaluation.probing.tables import tables
from mllmrec.evaluation.ranking.chunks import scoring_task
from mllmrec.evaluation.ranking.models import ModelChoice, choose_model, open_ranker, prompt_content
from mllmrec.evaluation.ranking.runs import candidate_file, run_folder
from mllmrec.evaluation.ranking.stage import check_window, run_inputs, window_of
from mllmrec.models.base import CandidateScorer
from mllmrec.models.chat import Encoder
from mllmrec.models.suitability import within_context
from mllmrec.progress import progress
from mllmrec.records import RankingExample, Summary
from mllmrec.settings.evaluation import PROBES, ProbeSettings
from mllmrec.storage.manifests import Manifest, hash_files
from mllmrec.storage.record_log import Work, open_work
from mllmrec.storage.workspace import Workspace, read_json, read_jsonl, write_json, write_jsonl


def run(settings: ProbeSettings, workspace: Workspace) -> Summary:
    """Write RUN/probes.json and show it as tables."""
    started = time.monotonic()
    job = prepare(settings, workspace)
    chunks = {chunk.key: chunk for chunk in job.plan.chunks()}
    keys = list(chunks)
    with open_work(job.artifact, settings, job.inputs, lambda: _recall(job.scores)) as work:
        if work.nothing_to_do(keys) and read_json(job.artifact)["asked"] == job.asked:
            return _summary(job, f"{job.artifact} is finished; nothing to do.")
        if todo := [chunks[key] for key in work.todo(keys)]:
            scorer = open_scorer(settings, workspace, job.choice, job.interactions.catalogue, job.window)
            _score(work, scorer, todo, job)
        manifest = work.complete(
            keys,
            lambda rows: _write(job, rows),
            started=started,
            counts={"users": len(job.plan.users), "scorings": sum(len(chunk.examples) for chunk in chunks.values())},
        )
    headline = f"Probed {job.choice.name} on {len(job.plan.users):,} users: {job.artifact}"
    return Summary(headline=headline, artifact=job.artifact) if manifest is None else _summary(job, headline)


def prepare(settings: ProbeSettings, workspace: Workspace) -> ProbeJob:
    """All that a probe needs but the model itself."""
    choice = choose_model(settings, workspace)
    if choice.trained is None:
        settings = within_context(settings, choice.base)
    window = window_of(settings, choice)
    candidates = candidate_file(settings.model_copy(update={"min_inter": window}), workspace)
    whole = settings.model_copy(update={"limit": None})
    artifact = run_folder(whole, workspace, choice.name, candidates) / "probes.json"
    train = hash_files(train=workspace.dataset(settings.dataset).split("train"))
    interactions = Interactions.load(workspace, settings.dataset)
    examples = ranked_lists(candidates, interactions, window)
    check_window(examples, window, choice, candidates)
    asked = _asked(settings, artifact)
    users = sliced(examples, settings.limit or len(examples), settings.seed)
    traces = trace_file(workspace.dataset(settings.dataset)) if "hint" in asked["probes"] else None
    plan = make_plan(
        asked["probes"],
        users,
        prompt_content(settings, workspace, choice, window)[0],
        hints_of(traces, interactions, users, settings.seed),
        rotations=asked["rotations"],
    )
    return ProbeJob(
        settings=settings,
        choice=choice,
        window=window,
        candidates=candidates,
        artifact=artifact,
        inputs=run_inputs(settings, workspace, candidates, choice) | train,
        interactions=interactions,
        num_lists=len(examples),
        plan=plan,
        asked=asked,
    )


def open_scorer(
    settings: ProbeSettings, workspace: Workspace, choice: ModelChoice, catalogue: Catalogue, window: int
) -> ConditionScorer:
    """Load the model that is probed and make its scorer."""
    ranker = open_ranker(settings, workspace, choice, catalogue, window)
    return ConditionScorer(ranker.scorer, ranker.encoder, scored=settings.score, seed=settings.seed)


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """One model on one candidate file, and the plan of its probes.

    `asked` holds the settings that decide which probes are made, `num_lists` counts the lists of the whole file.
    """

    settings: ProbeSettings
    choice: ModelChoice
    window: int
    candidates: Path
    artifact: Path
    inputs: Mapping[str, str]
    interactions: Interactions
    num_lists: int
    plan: ProbePlan
    asked: Mapping[str, Any]

    @property
    def scores(self) -> Path:
        return self.artifact.with_name("probes.scores.jsonl")


class ConditionScorer:
    """Scores examples under any condition, with an encoder for each kind of catalogue and captions.

    `scored` is `answer` or `id`, as in `mllmrec evaluate`.
    """

    def __init__(self, scorer: CandidateScorer, encoder: Encoder, *, scored: str, seed: int) -> None:
        self.scorer, self.scored, self.seed = scorer, scored, seed
        self._encoders = {(False, False): encoder}

    def score(
        self, condition: Condition, examples: Sequence[RankingExample], hints: Mapping[str, str]
    ) -> list[list[float]]:
        """Scores of shape (examples, candidates), candidates in the order of their example.

        `hints` maps example ids to hints, which only hinted conditions show.
        """
        encoder = self._encoder(condition)
        tasks = []
        for example in examples:
            hint = hints[example.example_id] if condition.hinted else None
            assert hint is None or example.split == "train", "hints are for examples of the train split"
            tasks.append(scoring_task(changed(example, condition, self.seed), encoder, self.scored, hint))
        scores = dict(self.scorer.score(tasks))
        return [_turned_back(scores[index], condition) for index in range(len(tasks))]

    def take_budget(self) -> dict[str, Any]:
        """What the prompts since the last call had to leave out."""
        taken: dict[str, Any] = {}
        for encoder in self._encoders.values():
            for name, count in encoder.renderer.budget.items():
                taken[name] = taken.get(name, 0) + count
            encoder.renderer.budget.clear()
        return taken

    def _encoder(self, condition: Condition) -> Encoder:
        kind = (condition.swapped_captions, condition.masked_titles)
        if kind not in self._encoders:
            plain = self._encoders[False, False]
            renderer = plain.renderer
            self._encoders[kind] = plain.variant(
                MASKED if condition.masked_titles else renderer.catalogue,
                swapped(renderer.captions, self.seed) if condition.swapped_captions else renderer.captions,
            )
        return self._encoders[kind]


def _asked(settings: ProbeSettings, artifact: Path) -> dict[str, Any]:
    """The probes asked for and those made of the same users before: later probes are added to earlier ones."""
    names = ("probes", "rotations", "top_k", "limit")
    asked = settings.model_dump(mode="json", include=set(names))
    before = read_json(artifact)["asked"] if Manifest.read(artifact) and artifact.exists() else {}
    if settings.overwrite or before.get("limit", -1) != settings.limit:
        return asked
    if "position" not in settings.probes:
        asked["rotations"] = before["rotations"]
    asked["probes"] = [name for name in PROBES if name in (*settings.probes, *before["probes"])]
    return asked


def _score(work: Work, scorer: ConditionScorer, todo: Sequence[ProbeChunk], job: ProbeJob) -> None:
    with progress(f"probing {job.choice.name}", sum(len(chunk.examples) for chunk in todo)) as advance:
        for chunk in todo:
            begun = time.monotonic()
            scores = scorer.score(chunk.condition, chunk.examples, job.plan.hinted.hints)
            seconds = round(time.monotonic() - begun, 4)
            ids = [example.example_id for example in chunk.examples]
            row = {"examples": ids, "scores": scores, "seconds": seconds, "budget": scorer.take_budget()}
            work.done(chunk.key, row, {"seconds": seconds})
            advance(len(ids))


def _recall(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a finished artifact; none when its scores are gone, which are then computed again."""
    if path.exists():
        for row in read_jsonl(path):
            yield row.pop("key"), row


def _write(job: ProbeJob, rows: Iterator[tuple[str, dict[str, Any]]]) -> None:
    """Write all scores, then the results of the probes that are asked for."""
    chunks = {chunk.key: chunk for chunk in job.plan.chunks()}
    scores: dict[str, list[FloatArray]] = {}
    seconds: dict[str, float] = {}
    budget: dict[str, int] = {}

    def take() -> Iterator[dict[str, Any]]:
        for key, row in rows:
            if (chunk := chunks.get(key)) is not None:
                _check(job, chunk.examples, row)
                name = chunk.condition.name
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


def _check(job: ProbeJob, examples: Sequence[RankingExample], row: Mapping[str, Any]) -> None:
    if row["examples"] != [example.example_id for example in examples]:
        raise ArtifactError(
            f"{job.scores} holds scores of other users than {job.candidates} lists. Expected the same ones; score "
            "them again with --overwrite."
        )


def _summary(job: ProbeJob, headline: str) -> Summary:
    facts = read_json(job.artifact)
    return Summary(headline=headline, artifact=job.artifact, tables=tables(facts), facts=facts)


def _turned_back(scores_C: list[float], condition: Condition) -> list[float]:
    """Scores of a rotated list in the order that the list had before."""
    shift = condition.shift(len(scores_C))
    return scores_C[len(scores_C) - shift :] + scores_C[: len(scores_C) - shift]
