"""The common part of pseudo-cot and refine: a trace is written for every window, by statistics, a model or a server.

A `WritingJob` describes one of the two stages. Every trace is one record of the working log, so an interrupted start
goes on without asking twice. The module also makes the windows that get traces and the rows of the reasoning files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.drawing import questions
from mllmrec.data.sequences import Catalogue, Interactions, Windows, windows
from mllmrec.models.base import Request, Teacher
from mllmrec.models.server.asking import Spending, ask_all, dry_run_table
from mllmrec.progress import progress
from mllmrec.reasoning.profile.writer import PROFILE_VERSION, ProfileWriter
from mllmrec.reasoning.writing.prompts import TEACHER_TEMPLATE_VERSION, ShownItem
from mllmrec.reasoning.writing.steps import BrokenRuleError
from mllmrec.records import RankingExample, Summary, Table, example_id
from mllmrec.settings.texts import WriterSettings
from mllmrec.storage.json_streams import read_list, write_list
from mllmrec.storage.manifests import Manifest, hash_files, hash_model
from mllmrec.storage.record_log import Work, keys_left, open_work
from mllmrec.storage.workspace import Workspace

TOOK = {
    "calls": "calls",
    "retries": "sent again",
    "prompt_tokens": "tokens in",
    "completion_tokens": "tokens out",
    "seconds": "seconds of answers",
}


@dataclass(frozen=True, kw_only=True)
class WritingJob:
    """What one stage writes: `request(key, broken rule)` makes the request for a trace, `form` checks and tidies it.

    `what` names the traces in messages. `files` and `hashes` are what the texts depend on besides the train split,
    titles and captions.
    """

    artifact: Path
    what: str
    catalogue: Catalogue
    captions: Mapping[str, str]
    windows: Mapping[str, Window]
    request: Callable[[str, str | None], Request]
    form: Callable[[str], str]
    counts: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    pictures: bool = False
    answer_conditioned: bool = False
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A history and its target, by the id that training knows them by, and the 0-based physical line they are from."""

    example_id: str
    user_id: str
    history: tuple[str, ...]
    target_id: str
    line_index: int


def carry_out(job: WritingJob, settings: WriterSettings, workspace: Workspace, teacher: Teacher | None) -> Summary:
    """Write the job's artifact; a `teacher` that is given writes in place of the one that the settings name.

    Raises BackendError when the budget is spent or too many records failed; what is done is kept.
    """
    started, path = time.monotonic(), job.artifact
    spending = Spending(settings.price_in, settings.price_out, settings.budget)
    keys = list(job.windows)[: settings.limit]
    inputs = _inputs(job, settings, workspace)
    if settings.dry_run:
        left = keys_left(path, settings, inputs, lambda: finished_rows(path), keys)
        asked = left if settings.backend != "profile" else []
        table = dry_run_table((job.request(key, None) for key in asked), settings.max_new_tokens, spending)
        headline = f"{len(left):,} {job.what} would be written by {settings.model if asked else settings.backend}."
        return Summary(headline=headline, tables=(table,), warnings=tuple(job.warnings))
    with open_work(path, settings, inputs, lambda: finished_rows(path)) as work:
        if work.nothing_to_do(keys):
            headline = f"{path.name} is there already; nothing to do."
            return Summary(headline=headline, artifact=path, warnings=tuple(job.warnings))
        if work.todo(keys):
            _write(job, work, keys, settings, workspace, teacher, spending)
        manifest = work.complete(
            keys,
            lambda rows: write_list(path, (row for _, row in rows)),
            started=started,
            counts=job.counts,
            details={"spent": spending.account(work.usage), "answer_conditioned": job.answer_conditioned},
            known=list(job.windows),
        )
    return _summary(job, manifest, spending)


def train_windows(interactions: Interactions, length: int, mode: Windows) -> tuple[dict[str, Window], dict[str, int]]:
    """The windows that training uses, by example id in the order of lines; and the counts of what was left out."""
    lines = interactions.training_lines()
    examples, counts = questions(lines, "train", length, mode)
    first_line = dict[str, int]()
    for line in lines:
        for *history, target in windows(line.items, length, mode):
            first_line.setdefault(example_id(line.user_id, target, history), line.line_index)
    windows_by_id = {example.example_id: window_of(example, first_line[example.example_id]) for example in examples}
    return windows_by_id, counts


def window_of(example: RankingExample, line_index: int) -> Window:
    return Window(
        example_id=example.example_id,
        user_id=example.user_id,
        history=example.history,
        target_id=example.target_id,
        line_index=line_index,
    )


def shown_history(
    history: Sequence[str], catalogue: Catalogue, captions: Mapping[str, str], pictured: Sequence[str] = ()
) -> list[ShownItem]:
    """A history as writers see it; `pictured` are the items whose pictures are sent along, in their order."""
    numbers = {item: number for number, item in enumerate(pictured, 1)}
    return [
        ShownItem(title=catalogue.title(item), caption=captions.get(item, ""), picture=numbers.get(item, 0))
        for item in history
    ]


def finished_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a finished reasoning file by example id."""
    return ((row["example_id"], row) for row in read_list(path))


def trace_row(
    window: Window, catalogue: Catalogue, reasoning: str, writer: str, *, answer_conditioned: bool = False
) -> dict[str, Any]:
    """A record of the reasoning files. The target stands in it for joining alone."""
    return {
        "line_idx": window.line_index,
        "user_id": window.user_id,
        "history_items": [_named(item, catalogue) for item in window.history],
        "target_item": _named(window.target_id, catalogue),
        "reasoning": reasoning,
        "example_id": window.example_id,
        "writer": writer,
        "answer_conditioned": answer_conditioned,
    }


def _inputs(job: WritingJob, settings: WriterSettings, workspace: Workspace) -> dict[str, str]:
    """Hashes of all that the texts depend on."""
    dataset = workspace.dataset(settings.dataset)
    files = {split: dataset.split(split) for split in ("train", "valid")}
    files |= {"titles": dataset.titles, **job.files}
    if job.captions:
        files["captions"] = dataset.captions
    template = PROFILE_VERSION if settings.backend == "profile" else TEACHER_TEMPLATE_VERSION
    folder = workspace.model(settings.model) if settings.backend == "huggingface" else None
    model = {"model": hash_model(folder)} if folder else {}
    return {**hash_files(**files), "template": template, **job.hashes, **model}


def _write(
    job: WritingJob,
    work: Work,
    keys: Sequence[str],
    settings: WriterSettings,
    workspace: Workspace,
    teacher: Teacher | None,
    spending: Spending,
) -> None:
    """Bring every key to a record."""
    if settings.backend == "profile":
        writer = ProfileWriter(job.catalogue, job.captions, settings.seed)
        todo = work.todo(keys)
        with progress(f"writing {job.what}", len(todo)) as advance:
            for key in todo:
                window = job.windows[key]
                work.done(key, trace_row(window, job.catalogue, writer.write(window.history), writer.name))
                advance(1)
        return
    if teacher is None:
        # Here and not above: a local model's libraries take seconds to load.
        from mllmrec.models.teachers import open_teacher

        teacher = open_teacher(settings, workspace, vision=job.pictures)
    name = teacher.name

    def accept(key: str, text: str) -> Mapping[str, Any] | str:
        try:
            tidied = job.form(text)
        except BrokenRuleError as error:
            return str(error)
        return trace_row(job.windows[key], job.catalogue, tidied, name, answer_conditioned=job.answer_conditioned)

    ask_all(work, keys, teacher, job.request, accept, spending, f"asking for {job.what}")


def _summary(job: WritingJob, manifest: Manifest | None, spending: Spending) -> Summary:
    """The number of traces, the failures by reason, and the usage."""
    name = job.artifact.name
    if manifest is None:
        return Summary(headline=f"{name} is written by the first process.", artifact=job.artifact)
    counts, usage = manifest.counts, manifest.details["usage"]
    took = [(text, f"{usage[key]:,.0f}") for key, text in TOOK.items() if key in usage]
    took += [("money", f"{account['money']:,.4f}")] if (account := spending.account(usage)) else []
    failures = [(reason, f"{count:,}") for reason, count in counts.get("failed_by_reason", {}).items()]
    tables = (
        Table(title="What it took", columns=("", ""), rows=tuple(took)),
        Table(title="Failures", columns=("reason", "records"), rows=tuple(failures)),
    )
    return Summary(
        headline=f"{counts['done']:,} {job.what} in {name}" + (f"; {counts['failed']:,} failed" if failures else ""),
        artifact=job.artifact,
        tables=tuple(table for table in tables if table.rows),
        warnings=tuple(job.warnings),
        facts=dict(counts),
    )


def _named(item_id: str, catalogue: Catalogue) -> dict[str, str]:
    return {"item_id": item_id, "title": catalogue.title(item_id)}
