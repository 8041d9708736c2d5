"""The section about probes: how each model reacts to changed prompts, from the probes.json beside its RUN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mllmrec.errors import ArtifactError
from mllmrec.evaluation.comparison.statistics import Interval
from mllmrec.evaluation.probing.findings import headline
from mllmrec.evaluation.probing.tables import tables
from mllmrec.evaluation.reporting.figures import draw_intervals, draw_points
from mllmrec.evaluation.reporting.page import Block, Figure, FigureRow, Section, Sheet
from mllmrec.evaluation.reporting.runs import Ladder, Rung
from mllmrec.storage.manifests import Manifest, refuse_altered
from mllmrec.storage.workspace import read_json

Facts = Mapping[str, Any]


def probes_section(ladders: Sequence[Ladder]) -> Section | None:
    """Every probed RUN; None where there is none."""
    probed = [rung for ladder in ladders for rung in ladder.rungs if (rung.run.folder / "probes.json").exists()]
    blocks = [block for rung in probed for block in _read(rung)]
    if not blocks:
        return None
    return Section(
        key="probes",
        title="What the models go by",
        short="Probes",
        lead="The same users are asked again with one thing about the prompt changed, and all candidates are scored "
        "exactly, so a difference is the model's own.",
        blocks=tuple(blocks),
    )


def _read(rung: Rung) -> list[Block]:
    """The blocks of one probes.json; an ArtifactError when it lacks something or was altered since it was written."""
    path = rung.run.folder / "probes.json"
    if (manifest := Manifest.read(path)) is not None:
        refuse_altered(path, manifest, {path.name})
    try:
        return _blocks(rung, read_json(path))
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} isn't what `mllmrec probe` writes now ({type(error).__name__}: {error}). Expected the figures of "
            "this version; start the same probes again with --overwrite."
        ) from error


def _blocks(rung: Rung, facts: Facts) -> list[Block]:
    """Figures first, then the overview of all probes, then the tables of each."""
    title = f"{rung.label} · {facts['protocol']}, {facts['num_users']:,} users"
    *details, overview = tables(facts)
    figures = _figures(rung, facts)
    shown: list[Block] = [FigureRow(title=title, figures=figures)] if figures else []
    for table in (overview, *details):
        heading = table.title.partition(":")[0] if shown else title
        columns = tuple(column or "group" for column in table.columns)
        shown.append(Sheet(table=replace(table, title=heading, columns=columns)))
    return shown


def _figures(rung: Rung, facts: Facts) -> tuple[Figure, ...]:
    figures = []
    probes = {name: probe for name, probe in facts["probes"].items() if "not_applicable" not in probe}
    changed = {name: probe for name, probe in probes.items() if "metrics" in probe and name != "hint"}
    if changed:
        figures.append(_changes(rung, facts, changed))
    if "position" in probes and any(slot["HR@1"] for slot in probes["position"]["slots"]):
        figures.append(_slots(rung, facts, probes["position"]))
    return tuple(figures)


def _changes(rung: Rung, facts: Facts, changed: Mapping[str, Facts]) -> Figure:
    metric = headline(list(facts["metrics"]))
    rows = [("as it is", Interval(**facts["metrics"][metric]), True)]
    rows += [(name, Interval(**probe["metrics"][metric]["changed"]), False) for name, probe in changed.items()]
    return Figure(
        title=f"{metric}/{facts['protocol']} when the prompt changes",
        drawing=draw_intervals(
            rows, {"chance": facts["chance"][metric]}, f"changes-{rung.label}-{facts['candidates']}"
        ),
        text=f"{metric}: {'; '.join(f'{name} {interval}' for name, interval, _ in rows)}.",
    )


def _slots(rung: Rung, facts: Facts, position: Facts) -> Figure:
    intervals = [(slot["slot"], Interval(**slot["HR@1"])) for slot in position["slots"] if slot["HR@1"]]
    return Figure(
        title=f"HR@1/{facts['protocol']} by the slot of the target",
        drawing=draw_points(intervals, f"slots-{rung.label}-{facts['candidates']}", what="slot in the candidate list"),
        text=f"HR@1 with the target in each slot. {'; '.join(f'{slot}: {interval}' for slot, interval in intervals)}.",
    )
