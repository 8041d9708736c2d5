"""Other cut-offs of a finished RUN: its rankings are summarised again, and no model is loaded.

K decides which metrics are reported of a ranking and not the ranking itself, so that a RUN keeps the cut-offs of
earlier calls beside those that are asked for now. The exception is `--method generate`, where the largest K is the
number of answers that the model is asked for: with another one it would answer otherwise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmrec.evaluation.metrics import Position, means, metric_names, per_user
from mllmrec.evaluation.ranking.rankings import position_of
from mllmrec.evaluation.ranking.runs import (
    THOUGHTS,
    Run,
    read_run,
    remove_reference_files,
    run_files,
    summarise,
    write_reference_files,
)
from mllmrec.launch import rank_and_size
from mllmrec.progress import note
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.manifests import Manifest, altered, finished, vouched, write_sealed
from mllmrec.storage.workspace import read_json, write_json

PositionCounts = Sequence[Sequence[int]]
"""How many users' targets have which position: rows of (higher, ties, number of candidates, users)."""


def finished_run(folder: Path, settings: RunSettings, inputs: Mapping[str, str], *, answers: int = 0) -> Run | None:
    """The RUN that these settings and inputs already made; None when there is none.

    It has the cut-offs asked for, and keeps those that it had.
    `answers` is how many answers a generated RUN of these settings asks for, 0 for a scored one. Raises ArtifactError
    when the RUN was made in another way.
    """
    manifest = Manifest.read(folder)
    reported = tuple(manifest.settings.get("top_k", ())) if manifest is not None else ()
    alike = settings.model_copy(update={"top_k": reported}) if reported and answers in (0, max(reported)) else settings
    if manifest is None or finished(folder, alike, inputs, remade=_derived(folder, manifest)) is None:
        return None
    run = read_run(folder)
    wanted = tuple(sorted({*settings.top_k, *reported}))
    unchanged = wanted == reported == tuple(run.facts["top_k"]) and not altered(folder, manifest)
    if rank_and_size()[0] or unchanged:
        return run
    return _summarised_again(run, manifest, settings.model_copy(update={"top_k": wanted}))


def normalised(positions: Iterable[Position], top_k: Sequence[int]) -> dict[str, Any]:
    """The facts of length-normalised scores in metrics.json: metrics, and the counts from which other K's follow.

    >>> normalised([Position(1, 0, 3), Position(0, 0, 3), Position(1, 0, 3)], [1])["length_normalised_places"]
    [[0, 0, 3, 1], [1, 0, 3, 2]]
    """
    counts = Counter((position.higher, position.ties, position.num_candidates) for position in positions)
    rows = [[*position, users] for position, users in sorted(counts.items())]
    return {"length_normalised": _metrics_of(rows, metric_names(top_k)), "length_normalised_places": rows}


def _derived(folder: Path, manifest: Manifest) -> set[str]:
    """The files that follow from the others; metrics.json among them when a change of cut-offs was interrupted."""
    path = folder / "metrics.json"
    halfway = path.exists() and read_json(path).get("top_k") != manifest.settings.get("top_k")
    return set(manifest.outputs) - {"rankings.jsonl", THOUGHTS, *(() if halfway else (path.name,))}


def _summarised_again(run: Run, manifest: Manifest, settings: RunSettings) -> Run:
    """`run` with the metrics of other cut-offs.

    metrics.json comes first and the manifest last, so that a start that dies in between leaves them at odds, and the
    next one does this again.
    """
    cuts = ", ".join(map(str, settings.top_k))
    note(f"{run.folder}: its rankings are summarised at K = {cuts}; nothing is ranked again.")
    positions = [position_of(ranking) for ranking in run.rankings()]
    facts: dict[str, Any] = {**run.facts, **summarise(positions, settings.top_k, settings.seed)}
    if "length_normalised" in facts:
        facts["length_normalised"] = _normalised_again(facts, settings.top_k)
    write_json(run.folder / "metrics.json", facts)
    remove_reference_files(run.folder, facts["name"], facts["dataset"])
    write_reference_files(run.folder, run.rankings(), facts)
    _renew(manifest, run, {"top_k": list(settings.top_k)})
    return Run(folder=run.folder, facts=facts)


def _renew(manifest: Manifest, run: Run, changed: Mapping[str, Any]) -> None:
    """Write the manifest with some settings changed; how the RUN was ranked stays as it was."""
    renewed = replace(
        manifest,
        settings={**manifest.settings, **changed},
        result_settings={**manifest.result_settings, **changed},
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        outputs=vouched(run.folder, run_files(run.folder, run.facts["name"], run.facts["dataset"])),
    )
    write_sealed(run.folder, renewed)


def _normalised_again(facts: Mapping[str, Any], top_k: Sequence[int]) -> dict[str, float]:
    """The length-normalised metrics of other K; where no counts were kept, those of them that were reported."""
    if "length_normalised_places" in facts:
        return _metrics_of(facts["length_normalised_places"], metric_names(top_k))
    return {
        name: facts["length_normalised"][name] for name in metric_names(top_k) if name in facts["length_normalised"]
    }


def _metrics_of(rows: PositionCounts, names: Sequence[str]) -> dict[str, float]:
    positions = [Position(higher, ties, count) for higher, ties, count, users in rows for _ in range(users)]
    return {name: round(value, 6) for name, value in zip(names, means(per_user(positions, names)), strict=True)}
