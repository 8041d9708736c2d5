"""`mllmrec assess`: score every trace for trust, reject what leaks or is useless, keep the best of the rest.

Each trace is examined for leakage of its target and for its form (`examination.py`), for whether it speaks of its own
history (`modality.py`), with --scorer for what it does for the prediction (`prediction.py`), and for whether it repeats
another one (`verdicts.py`). A trace that is rejected isn't scored by a model, because that costs most of the time.
The scores stay in the artifact: another --keep or --threshold only decides again, in seconds.

Scores are computed trace by trace and appended as they come, so that a crash costs one chunk and any number of
processes writes the same file. What needs all traces at once, near-duplicates and the decision, comes last.

The summary has a table of the traces by fate and one of their scores; a figure of both goes to the results folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any

from mllmrec.data.item_files import read_captions
from mllmrec.data.traces import Joined
from mllmrec.errors import DataError
from mllmrec.progress import progress
from mllmrec.reasoning.assessment.examination import Examination
from mllmrec.reasoning.assessment.prediction import PredictionJudge
from mllmrec.reasoning.assessment.scorers import Share, Subjects, shares_of
from mllmrec.reasoning.assessment.verdicts import (
    LESS_TRUSTED,
    Assessment,
    KeepRule,
    Parts,
    Rows,
    decide_again,
    stored_rows,
    write_verdicts,
)
from mllmrec.records import Summary, Table, counted
from mllmrec.settings.texts import AssessSettings
from mllmrec.storage.manifests import Manifest, hash_files, hash_model
from mllmrec.storage.record_log import Work, open_work
from mllmrec.storage.workspace import Workspace

ASSESSMENT_VERSION = "2026-11.1"
CHUNK = 64
TOO_LONG = "its prompt doesn't fit the scorer"

SHOWN: Mapping[str, tuple[str, Callable[[Parts], float | None]]] = {
    "modality": ("modality consistency", lambda parts: parts.modality),
    "lift": ("lift of the target, nats", lambda parts: parts.lift),
    "steps": ("steps", lambda parts: parts.steps),
    "length": ("length", lambda parts: parts.length),
}
NOTED = {
    "mismatched": (
        "record of the file belongs to no window of the train split and is left out",
        "records of the file belong to no window of the train split and are left out",
    ),
    "repeated": (
        "record of the file repeats an example and is left out",
        "records of the file repeat an example and are left out",
    ),
    "held_out": (
        "trace is of a validation user, whom nothing trains on, and is left out",
        "traces are of validation users, whom nothing trains on, and are left out",
    ),
    "answer_conditioned": (
        "trace was written with the target in view: what it does for it is no merit of its own",
        "traces were written with the target in view: what they do for it is no merit of theirs",
    ),
}
NO_SCORER = (
    "Without --scorer nothing was said about prediction consistency: confidence comes from the other parts. Train two "
    "scorers with `mllmrec sft --fold 1/2` and `--fold 2/2` and give both."
)


def run(settings: AssessSettings, workspace: Workspace) -> Summary:
    """Write <dataset>_assessed_cot.json and a figure of it; the summary counts what is kept, and the rest by reason."""
    started, path = time.monotonic(), workspace.dataset(settings.dataset).assessed_cot
    subjects = Subjects.read(settings, workspace)
    shares, hashes = shares_of(settings, workspace, subjects)
    inputs, keys = _inputs(settings, workspace, subjects) | hashes, list(subjects.users)
    rule = KeepRule(settings.keep, settings.threshold, settings.seed)
    counts: dict[str, Any] = {"records": subjects.counts}
    with open_work(path, settings, inputs, lambda: stored_rows(path)) as work:
        if assessed := work.nothing_to_do(keys):
            assessment, changed = decide_again(path, rule)
            if not changed:
                if not (picture := _picture(settings, workspace)).exists():
                    draw(assessment, picture, settings.dataset)
                headline = f"{path.name} is there already; nothing to do."
                return summary(path, _manifest(path), assessment, headline=headline)
        else:
            _assess(work, keys, settings, workspace, subjects, shares)
        assessments: list[Assessment] = []

        def write(rows: Rows) -> None:
            finished = [key for key, _ in rows]
            assessments.append(write_verdicts(path, lambda: work.rows(finished), rule))
            counts.update(assessments[0].counts())

        manifest = work.complete(keys, write, started=started, counts=counts)
    if manifest is None:
        return Summary(headline=f"{path.name} is written by the first process.", artifact=path)
    begin = "Chose again from the stored scores: " if assessed else ""
    return _drawn_summary(settings, workspace, manifest, assessments[0], begin)


def summary(path: Path, manifest: Manifest, assessment: Assessment, *, headline: str) -> Summary:
    """The tables and warnings of a finished assessment."""
    records = manifest.counts["records"]
    warnings = [f"{counted(records[name], *words)}." for name, words in NOTED.items() if records.get(name)]
    if all(parts.lift is None for parts in assessment.parts.values()):
        warnings.append(NO_SCORER)
    return Summary(
        headline=headline,
        artifact=path,
        tables=(fates_table(manifest, assessment), scores_table(assessment)),
        warnings=tuple(warnings),
        facts=dict(manifest.counts),
    )


def fates_table(manifest: Manifest, assessment: Assessment) -> Table:
    """How many traces are kept, and how many aren't, by reason."""
    counts, total = assessment.counts(), len(assessment.verdicts) + int(manifest.counts["failed"])
    rows = [("kept", counts["kept"]), *sorted(counts["left_out"].items(), key=lambda row: row[0] != LESS_TRUSTED)]
    rows += [(f"failed: {reason}", count) for reason, count in manifest.counts.get("failed_by_reason", {}).items()]
    return Table(
        title="Traces",
        columns=("fate", "traces", "share"),
        rows=tuple((fate, f"{count:,}", f"{count / total:.1%}") for fate, count in rows),
    )


def scores_table(assessment: Assessment) -> Table:
    """The quartiles of each part among kept, less trusted and rejected traces."""
    groups: dict[str, list[str]] = {"kept": [], "less trusted": [], "rejected": []}
    for key, verdict in assessment.verdicts.items():
        groups["kept" if verdict.keep else "less trusted" if verdict.reason == LESS_TRUSTED else "rejected"].append(key)
    rows = []
    for name, part in SHOWN.values():
        cells = [_quartiles([part(assessment.parts[key]) for key in keys]) for keys in groups.values()]
        if any(cells):
            rows.append((name, *cells))
    confidences = [_quartiles([assessment.verdicts[key].confidence for key in keys]) for keys in groups.values()]
    return Table(
        title="Scores",
        columns=("part", *groups),
        rows=(*rows, ("confidence", *confidences)),
        note="The median and the quartiles around it.",
    )


def draw(assessment: Assessment, picture: Path, dataset: str) -> None:
    """Draw the distributions; matplotlib is imported only here."""
    from mllmrec.reasoning.assessment.plots import draw_assessment

    draw_assessment(assessment, picture, dataset)


def _inputs(settings: AssessSettings, workspace: Workspace, subjects: Subjects) -> dict[str, str]:
    """Hashes of all that the scores depend on, except the scorers."""
    dataset = workspace.dataset(settings.dataset)
    files = hash_files(
        traces=subjects.traces.path,
        train=dataset.split("train"),
        titles=dataset.titles,
        captions=dataset.captions,
    )
    embedder = Path(settings.embedder)
    return files | {"rules": ASSESSMENT_VERSION} | ({"embedder": hash_model(embedder)} if embedder.is_dir() else {})


def _assess(
    work: Work,
    keys: list[str],
    settings: AssessSettings,
    workspace: Workspace,
    subjects: Subjects,
    shares: Iterable[Share],
) -> None:
    """Bring every key of this process to a record: scorer after scorer, chunk after chunk of the file."""
    todo = set(work.todo(keys))
    if not todo:
        return
    captions = read_captions(workspace, settings.dataset, "auto")
    examination = Examination(subjects.interactions, captions, settings, stepped=subjects.are_refined)
    with progress("assessing", len(todo)) as advance:
        for share in shares:
            mine = todo & share.keys
            judge = share.open() if mine and share.open is not None else None
            for chunk in _chunks(joined for joined in subjects.traces if joined[0].example_id in mine):
                for joined, row in zip(chunk, examination.rows(chunk), strict=True):
                    _finish(work, joined, row, judge)
                    advance(1)


def _finish(work: Work, joined: Joined, row: dict[str, Any], judge: PredictionJudge | None) -> None:
    """Append one row, with its lift where it is worth measuring."""
    trace, begun = joined[0], time.monotonic()
    if judge is None or row["reason"] is not None:
        work.done(trace.example_id, row)
        return
    try:
        lift = judge.lift(trace)
    except DataError:
        work.failed(trace.example_id, TOO_LONG)
        return
    row["scores"] |= {"lift": lift.value, "lift_error": lift.error}
    work.done(trace.example_id, row, {"scored": 1, "seconds": round(time.monotonic() - begun, 3)})


def _manifest(path: Path) -> Manifest:
    manifest = Manifest.read(path)
    assert manifest is not None, "a finished artifact has a manifest"
    return manifest


def _picture(settings: AssessSettings, workspace: Workspace) -> Path:
    return workspace.dataset(settings.dataset).results / "assessed_cot.png"


def _drawn_summary(
    settings: AssessSettings, workspace: Workspace, manifest: Manifest, assessment: Assessment, begin: str = ""
) -> Summary:
    path, picture = workspace.dataset(settings.dataset).assessed_cot, _picture(settings, workspace)
    draw(assessment, picture, settings.dataset)
    kept, total = manifest.counts["kept"], len(assessment.verdicts)
    headline = f"{begin}{kept:,} of {total:,} traces are kept in {path.name}; the distributions are drawn in {picture}."
    return summary(path, manifest, assessment, headline=headline)


def _chunks(joined: Iterable[Joined]) -> Iterator[list[Joined]]:
    iterator = iter(joined)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _quartiles(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, middle, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else known * 3
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
