"""What `mllmrec assess` tells: a table of what is kept and why the rest is not, one of the scores, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles

from mllmrec.manifests import Manifest
from mllmrec.reasoning.confidence import LESS_TRUSTED, Parts
from mllmrec.reasoning.verdicts import Outcome
from mllmrec.records import Summary, Table

SHOWN: Mapping[str, tuple[str, Callable[[Parts], float | None]]] = {
    "modality": ("modality consistency", lambda parts: parts.modality),
    "lift": ("lift of the target, nats", lambda parts: parts.lift),
    "steps": ("steps", lambda parts: parts.steps),
    "length": ("length", lambda parts: parts.length),
}
NOTED = {
    "mismatched": "records of the file belong to no window of the train split and are left out",
    "repeated": "records of the file repeat an example and are left out",
    "held_out": "traces are of validation users, whom nothing trains on, and are left out",
    "answer_conditioned": "traces were written with the target in view: what they do for it is no merit of theirs",
}
NO_SCORER = (
    "Without --scorer nothing was said about prediction consistency: confidence comes from the other parts. Train two "
    "scorers with `mllmrec sft --fold 1/2` and `--fold 2/2` and give both."
)


def summary(path: Path, manifest: Manifest, outcome: Outcome, *, headline: str) -> Summary:
    """The tables and warnings of a finished assessment."""
    records = manifest.counts["records"]
    warnings = [f"{records[name]:,} {text}." for name, text in NOTED.items() if records.get(name)]
    if all(parts.lift is None for parts in outcome.parts.values()):
        warnings.append(NO_SCORER)
    return Summary(
        headline=headline,
        artifact=path,
        tables=(fates_table(manifest, outcome), scores_table(outcome)),
        warnings=tuple(warnings),
        facts=dict(manifest.counts),
    )


def fates_table(manifest: Manifest, outcome: Outcome) -> Table:
    """How many traces are kept, and how many aren't, by reason."""
    counts, total = outcome.counts(), len(outcome.verdicts) + int(manifest.counts["failed"])
    rows = [("kept", counts["kept"]), *sorted(counts["left_out"].items(), key=lambda row: row[0] != LESS_TRUSTED)]
    rows += [(f"failed: {reason}", count) for reason, count in manifest.counts.get("failed_by_reason", {}).items()]
    return Table(
        title="Traces",
        columns=("fate", "traces", "share"),
        rows=tuple((fate, f"{count:,}", f"{count / total:.1%}") for fate, count in rows),
    )


def scores_table(outcome: Outcome) -> Table:
    """The quartiles of each part among kept, less trusted and rejected traces."""
    groups: dict[str, list[str]] = {"kept": [], "less trusted": [], "rejected": []}
    for key, verdict in outcome.verdicts.items():
        groups["kept" if verdict.keep else "less trusted" if verdict.reason == LESS_TRUSTED else "rejected"].append(key)
    rows = []
    for name, part in SHOWN.values():
        told = [_quartiles([part(outcome.parts[key]) for key in keys]) for keys in groups.values()]
        if any(told):
            rows.append((name, *told))
    told = [_quartiles([outcome.verdicts[key].confidence for key in keys]) for keys in groups.values()]
    return Table(
        title="Scores",
        columns=("part", *groups),
        rows=(*rows, ("confidence", *told)),
        note="The median and the quartiles around it.",
    )


def draw(outcome: Outcome, picture: Path, dataset: str) -> None:
    """Draw the distributions; the library loads here."""
    from mllmrec.reasoning.plots import draw_assessment

    draw_assessment(outcome, picture, dataset)


def _quartiles(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    if not found:
        return ""
    low, middle, high = quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
