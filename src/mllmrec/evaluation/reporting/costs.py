"""Costs, settings and hashes of every artifact of a dataset, read from the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mllmrec.evaluation.reporting.page import Block, Facts, Origins, Prose, Section, Sheet
from mllmrec.records import Table
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, read_jsonl

COLUMNS = ("stage", "artifact", "finished, UTC", "time", "calls", "tokens in", "tokens out", "money")
DIGITS = 16


class Made(NamedTuple):
    """One artifact (by its path under the root) and its manifest."""

    path: str
    manifest: Manifest


class Cost(NamedTuple):
    """The costs of one stage; zero where nothing is known."""

    seconds: float
    calls: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    money: float = 0


def read_made(workspace: Workspace, dataset: str) -> list[Made]:
    """Every finished artifact of the dataset, in the order in which they were finished."""
    artifacts = [
        Made(_under(path, workspace.root), manifest)
        for path in sorted(set(_manifests(workspace, dataset)))
        if (manifest := Manifest.read(_artifact(path))) is not None and manifest.settings.get("dataset") == dataset
    ]
    return sorted(artifacts, key=lambda made: (made.manifest.finished_at, made.path))


def costs_section(workspace: Workspace, made: list[Made]) -> Section:
    """A row for each stage and their sum; columns of which nothing is known are left out."""
    costs = [_cost(workspace, artifact) for artifact in made]
    total = Cost(*(sum(column) for column in zip(*costs, strict=True)))
    rows = [(*_names(artifact), *_amounts(cost)) for artifact, cost in zip(made, costs, strict=True)]
    table = [*rows, ("all stages", "", "", *_amounts(total))]
    kept = [number for number in range(len(COLUMNS)) if any(row[number] for row in table)]
    shown = [tuple(row[number] for number in kept) for row in table]
    return Section(
        key="costs",
        title="What it took",
        short="Costs",
        lead="Wall-clock time of each stage as its manifest tells it. Tokens in are those a model read (in training, "
        "trained on); calls, tokens out and money are those of teachers, or tokens out those of thoughts.",
        blocks=(
            Sheet(
                table=Table(title="Costs by stage", columns=tuple(COLUMNS[n] for n in kept), rows=tuple(shown[:-1])),
                foot=(shown[-1],),
                words=frozenset((1,)),
            ),
        ),
    )


def settings_section(made: list[Made]) -> Section:
    """The settings that decide each result, the hashes of what it was made from, and the versions of the software."""
    blocks: list[Block] = [Prose(text=_software(made)), Origins(facts=tuple(_facts(artifact) for artifact in made))]
    return Section(
        key="settings",
        title="Settings and hashes",
        short="Settings",
        lead="The same settings and inputs make the same artifact. Knobs that only change how fast it is made aren't "
        "shown; the manifests hold all.",
        blocks=tuple(blocks),
    )


def clock(seconds: float) -> str:
    """A duration with a unit that suits it.

    >>> clock(0.183), clock(29.1), clock(166.96), clock(11_160)
    ('0.2 s', '29 s', '2 min 47 s', '3 h 06 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def _manifests(workspace: Workspace, dataset: str) -> Iterator[Path]:
    files = workspace.dataset(dataset)
    data = files.folder
    yield from data.glob("*.manifest.json")
    yield from (data / "processed").glob("*.manifest.json")
    yield from (data / "processed" / "baselines").glob("*/*/manifest.json")
    yield from files.folder.parent.glob(f"{dataset}_*.manifest.json")
    yield from workspace.checkpoint(dataset, "any").parent.glob("*/manifest.json")
    yield from files.results.glob("*/*/*manifest.json")
    yield from workspace.root.glob("*/manifest.json")


def _artifact(manifest: Path) -> Path:
    """The artifact whose manifest lies there."""
    return (
        manifest.parent
        if manifest.name == "manifest.json"
        else manifest.with_name(manifest.name.removesuffix(".manifest.json"))
    )


def _under(manifest: Path, root: Path) -> str:
    return _artifact(manifest).relative_to(root).as_posix()


def _cost(workspace: Workspace, made: Made) -> Cost:
    usage, spent, thoughts = (made.manifest.details.get(name) or {} for name in ("usage", "spent", "thoughts"))
    return Cost(
        seconds=made.manifest.seconds,
        calls=usage.get("calls", 0),
        tokens_in=usage.get("prompt_tokens", 0) or _trained_tokens(workspace.root / made.path),
        tokens_out=usage.get("completion_tokens", 0) or thoughts.get("tokens", 0),
        money=spent.get("money", 0),
    )


def _trained_tokens(folder: Path) -> float:
    log = folder / "training.jsonl"
    return max((row.get("num_tokens", 0) for row in read_jsonl(log)), default=0) if log.exists() else 0


def _names(made: Made) -> tuple[str, str, str]:
    finished = made.manifest.finished_at.replace("T", " ").removesuffix("Z")
    verb = made.manifest.verb
    return (verb, _breakable(made.path), finished[:16])


def _breakable(path: str) -> str:
    """A path in two lines: where, and what."""
    folder, _, name = path.rpartition("/")
    return f"{name}\n{folder}" if folder else name


def _amounts(cost: Cost) -> tuple[str, ...]:
    counts = (f"{amount:,.0f}" if amount else "" for amount in cost[1:4])
    return (clock(cost.seconds), *counts, f"{cost.money:,.4f}" if cost.money else "")


def _facts(made: Made) -> Facts:
    manifest = made.manifest
    groups = (
        ("Settings", _pairs(manifest.result_settings)),
        ("Inputs", tuple((role, _hash(value)) for role, value in sorted(manifest.inputs.items()))),
        ("Counts", _pairs(manifest.counts)),
    )
    return Facts(
        title=manifest.verb, subtitle=made.path, groups=tuple((name, pairs) for name, pairs in groups if pairs)
    )


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _plain(value)) for name, value in values.items() if value not in (None, "", [], {}))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(part)}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _hash(value: str) -> str:
    return value[:DIGITS] if len(value) == 64 else value


def _software(made: list[Made]) -> str:
    """One sentence for all artifacts, or the first and the last of several kinds."""
    kinds = list(dict.fromkeys(_versions(artifact.manifest) for artifact in made))
    if len(kinds) == 1:
        return f"All made with {kinds[0]}."
    return f"Made with {len(kinds)} versions of the software. The last: {kinds[-1]}."


def _versions(manifest: Manifest) -> str:
    listed = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    return f"{listed or 'unknown packages'}; revision `{(manifest.revision or 'unknown')[:10]}`"
