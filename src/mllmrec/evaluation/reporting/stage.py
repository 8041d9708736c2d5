"""`mllmrec report`: one page that shows all that is known of a dataset's models, to a reader who didn't make them.

It trains and ranks nothing. It reads RUNs, logs, manifests and the dataset's files, computes paired differences of
RUNs, and writes result/<dataset>/report.html, a single file that needs no network, and report.md. What isn't there yet
is named at the end with the command that makes it. The page is made anew each time and doesn't hold the time at which
it was made: the same files give the same page.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from mllmrec import __version__
from mllmrec.data.raw_ids import RawIds
from mllmrec.data.sequences import PREPARE, read_catalogue, require_dataset
from mllmrec.errors import SettingsError
from mllmrec.evaluation.reporting.cases import Drawn, LoadPicture, Posters, cases_section, draw_cases
from mllmrec.evaluation.reporting.costs import Made, costs_section, read_made, settings_section
from mllmrec.evaluation.reporting.guide import how_to_read, title_of
from mllmrec.evaluation.reporting.ladder import MeasuredLadder, ladder_section, measure, overview_section, verdict
from mllmrec.evaluation.reporting.ladder_figures import groups_section
from mllmrec.evaluation.reporting.material import (
    audit_section,
    captions_section,
    data_section,
    read_traces,
    traces_section,
)
from mllmrec.evaluation.reporting.page import Page, Section, to_html, to_markdown
from mllmrec.evaluation.reporting.probes import probes_section
from mllmrec.evaluation.reporting.runs import read_ladders
from mllmrec.evaluation.reporting.training import training_section
from mllmrec.records import Summary
from mllmrec.settings.evaluation import ReportSettings
from mllmrec.storage.locks import locking
from mllmrec.storage.workspace import Workspace, require, write_text

WINDOW = 10
COMMANDS = {
    "ladder": ("RUNs", "`mllmrec candidates`, `mllmrec baselines` and `mllmrec evaluate` make them"),
    "models": ("Models on the ladder", "`mllmrec evaluate --tag TAG` ranks the same candidates with one"),
    "baselines": ("Baselines on the ladder", "`mllmrec baselines` ranks the same candidates"),
    "training": ("Curves of training", "`mllmrec sft` and `mllmrec grpo` log them"),
    "probes": ("Probes", "`mllmrec probe` asks the model in other words and tells what it goes by"),
    "audit": ("Audit", "`mllmrec report` without --no-audit runs it"),
    "captions": ("Captions", "`mllmrec caption` writes them"),
    "traces": ("Reasoning traces", "`mllmrec pseudo-cot`, `mllmrec refine` and `mllmrec assess` write and judge them"),
}


def report_page(settings: ReportSettings, workspace: Workspace) -> Path:
    return workspace.dataset(settings.dataset).results / "report.html"


@locking(report_page)
def run(settings: ReportSettings, workspace: Workspace, load_picture: LoadPicture | None = None) -> Summary:
    """Write the page; `load_picture` opens an item's image, and without it the page has none."""
    dataset = settings.dataset
    require_dataset(workspace, dataset)
    files = workspace.dataset(dataset)
    catalogue = read_catalogue(require(files.titles, "The titles file", PREPARE))
    raw_ids = RawIds.read(files.raw_ids) if settings.raw_ids else RawIds()
    page, warnings = _page(settings, workspace, Posters(catalogue, load_picture, raw_ids))
    html = report_page(settings, workspace)
    write_text(html, to_html(page))
    write_text(html.with_suffix(".md"), to_markdown(page))
    size = html.stat().st_size / 1e6
    return Summary(
        headline=f"Wrote {html} ({size:.1f} MB, {len(page.sections)} sections) and {html.with_suffix('.md').name}.",
        artifact=html,
        warnings=tuple(warnings),
        facts={"sections": [section.key for section in page.sections], "missing": list(page.missing)},
    )


def _page(settings: ReportSettings, workspace: Workspace, posters: Posters) -> tuple[Page, list[str]]:
    """All sections for which there is something to show, and remarks on what was passed over."""
    dataset = settings.dataset
    ladders, unfinished = read_ladders(workspace, dataset, settings.metric)
    measured = [measure(ladder, settings.seed) for ladder in ladders]
    drawn = _drawn(settings, workspace, measured)
    made = read_made(workspace, dataset)
    window = _window(made)
    traces = read_traces(workspace, dataset, drawn.users if drawn else (), settings.seed)
    possible: list[Section | None] = [
        overview_section(ladders),
        *(ladder_section(ladder) for ladder in measured),
        groups_section(measured[0].ladder, measured[0].positions, workspace) if measured else None,
        probes_section(ladders),
        training_section(workspace, dataset),
        cases_section(drawn, posters, traces.of_users if traces else {}) if drawn else None,
        data_section(workspace, dataset, window),
        audit_section(workspace, dataset, window) if settings.audit else None,
        captions_section(workspace, dataset, posters, settings.seed),
        traces_section(traces, posters) if traces else None,
        *((costs_section(workspace, made), settings_section(made)) if made else ()),
    ]
    sections = tuple(section for section in possible if section is not None)
    page = Page(
        title=title_of(dataset, measured[0] if measured else None),
        reading=tuple(how_to_read(measured[0] if measured else None)),
        subtitle=_subtitle(made),
        verdict=tuple(verdict(measured[0])) if measured else (),
        sections=sections,
        missing=tuple(_missing(sections, measured)),
        footer=(f"Written by `mllmrec report` {__version__} from files alone; nothing on this page is loaded.",),
    )
    return page, [f"{folder} is no finished RUN and left out." for folder in unfinished]


def _drawn(settings: ReportSettings, workspace: Workspace, measured: Sequence[MeasuredLadder]) -> Drawn | None:
    if not measured:
        if settings.run:
            raise SettingsError(f"--run {settings.run} names no RUN: {settings.dataset} has none yet.")
        return None
    if not settings.cases:
        return None
    return draw_cases(measured[0], workspace, run=settings.run, count=settings.cases, seed=settings.seed)


def _window(made: Sequence[Made]) -> int:
    """Items in a window, as the candidate files were drawn."""
    windows = [
        artifact.manifest.settings.get("min_inter") for artifact in made if artifact.manifest.verb == "candidates"
    ]
    return next((window for window in windows if isinstance(window, int)), WINDOW)


def _subtitle(made: Sequence[Made]) -> str:
    if not made:
        return "Nothing was made for this dataset yet."
    last = made[-1].manifest.finished_at
    when = f"{datetime.fromisoformat(last):%d %b %Y, %H:%M} UTC" if last else "an unknown day"
    return f"{len(made)} artifacts, the last finished on {when}"


def _missing(sections: Sequence[Section], measured: Sequence[MeasuredLadder]) -> list[str]:
    """What isn't on the page, with the command that makes it."""
    there = {section.key.partition("-")[0] for section in sections}
    if measured:
        ladder = measured[0].ladder
        there |= {"models"} if ladder.models else set()
        there |= {"baselines"} if ladder.strongest_baseline is not None else set()
    else:
        there |= {"models", "baselines"}
    return [f"{what}: {command}." for key, (what, command) in COMMANDS.items() if key not in there]
