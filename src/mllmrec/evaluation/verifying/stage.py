"""The stage `verify`: does a RUN tell what its rankings show?

A second implementation, which shares no line with the first, takes rankings.jsonl and the frozen candidate file, works
out where every target came out, every metric, the chance level and the reference's files anew in plain Python, and
holds each against what the RUN tells. It fails on any difference, and on rankings that aren't the whole candidate
file, each example once. Of a ranking of the whole catalogue only the best are kept: a place beyond them is held against
what is kept and else taken on trust, which the table says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace, require, sha256
from mllmrec.data.candidates import read_candidates, sliced
from mllmrec.data.legacy import CACHE_NAME, load_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.pairing import run_named
from mllmrec.evaluation.runs import Run, read_run
from mllmrec.evaluation.verifying.catalogue import Allowed, allowed_items
from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.evaluation.verifying.files import check_reference_files
from mllmrec.evaluation.verifying.metrics import check_metrics
from mllmrec.evaluation.verifying.rankings import check_rankings
from mllmrec.manifests import Manifest
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.evaluation import VerifySettings

NEEDED: dict[str, type | tuple[type, ...]] = {
    "dataset": str,
    "name": str,
    "method": str,
    "candidates": str,
    "candidates_sha256": str,
    "num_users": int,
    "num_candidates": int,
    "top_k": list,
    "metrics": dict,
    "vacuous": list,
    "chance": dict,
    "invalid_share": (int, float),
}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A RUN and what came out of its checks."""

    run: Run
    checks: Checks


def run(settings: VerifySettings, workspace: Workspace) -> Summary:
    """Check RUN folders, given by path or by path under the root; the summary has not passed when anything differs."""
    verified = [verify(run_named(word, workspace), workspace, settings.candidates) for word in settings.runs]
    wrong = [each for each in verified if not each.checks.passed]
    looked = sum(sum(each.checks.looked_at.values()) for each in verified)
    return Summary(
        headline=(
            f"{len(wrong)} of {len(verified)} RUNs differ from what a second implementation gets; the notes say where."
            if wrong
            else f"{len(verified)} RUN{'s' * (len(verified) > 1)} verified: {looked:,} comparisons, no difference."
        ),
        tables=tuple(_table(each) for each in verified),
        warnings=tuple(f"{each.run.folder}: {told}" for each in wrong for told in each.checks.told()),
        facts={str(each.run.folder): each.checks.differences for each in verified},
        passed=not wrong,
    )


def verify(folder: Path, workspace: Workspace, candidates: str | None = None) -> Verified:
    """Check one finished RUN; `candidates` names its candidate file where it isn't found by itself."""
    told, checks = read_run(folder), Checks()
    manifest = Manifest.read(folder)
    assert manifest is not None
    _refuse_unreadable(told)
    path = _candidate_file(told, manifest, workspace, candidates)
    _check_candidate_file(checks, told, manifest, path)
    examples, num_lists = _examples(path, told, manifest)
    rankings = require(folder / "rankings.jsonl", "The rankings file", "Make the RUN again with --overwrite.")
    generated, keep = told.facts["method"] == "generate", max(told.facts["top_k"])
    allowed = _allowed(checks, told, path, examples)
    users = check_rankings(checks, rankings, examples, generated=generated, keep=keep, allowed=allowed)
    if beyond := sum(user.on_trust for user in users):
        checks.on_trust.append(
            f"the places of {beyond:,} of {len(users):,} targets, beyond what is kept of their lists"
        )
    check_metrics(checks, told.facts, users)
    if "slice" in told.facts:
        checks.equal("counts and shares", "the lists that a slice was drawn from", told.facts["slice"]["of"], num_lists)
    nowhere = sum(not user.positions for user in users)
    for name, found in (("users", len(users)), ("unranked", nowhere)):
        checks.equal("counts and shares", f"{name} in manifest.json", manifest.counts.get(name), found)
    check_reference_files(checks, folder, told.facts, users)
    return Verified(run=told, checks=checks)


def _refuse_unreadable(told: Run) -> None:
    """Refuse a metrics.json that lacks what there is to verify."""
    wrong = [name for name, kind in NEEDED.items() if not isinstance(told.facts.get(name), kind)]
    values = told.facts.get("metrics")
    bounds = list(values.values()) if isinstance(values, dict) else []
    if not all(isinstance(each, dict) and _is_interval(each) for each in bounds):
        wrong.append("value, low and high of each metric")
    if not told.facts.get("top_k"):
        wrong.append("a K in top_k")
    if wrong:
        raise ArtifactError(
            f"{told.folder / 'metrics.json'} can't be verified: {', '.join(wrong)} missing or of another kind. "
            "Expected what `mllmrec evaluate` writes; make the RUN again with --overwrite."
        )


def _is_interval(bounds: Mapping[str, Any]) -> bool:
    return all(isinstance(bounds.get(name), (int, float)) for name in ("value", "low", "high"))


def _candidate_file(told: Run, manifest: Manifest, workspace: Workspace, given: str | None) -> Path:
    """Of the places where it may lie, the first file with the hash that was told, else the first there is."""
    there = [path for path in _places(told, manifest, workspace, given) if path.is_file()]
    if not there:
        raise ArtifactError(
            f"{told.folder} ranked {told.facts['candidates']}, which is no longer there. Expected the frozen candidate "
            "file beside the data; give --root, name it with --candidates, or make it with `mllmrec candidates`."
        )
    return next((path for path in there if sha256(path) == told.facts["candidates_sha256"]), there[0])


def _places(told: Run, manifest: Manifest, workspace: Workspace, given: str | None) -> Iterator[Path]:
    """The file given, the one that the RUN's settings name, or that of its name beside the data."""
    parents = told.folder.resolve().parents
    roots = [workspace.root, *parents[3:4]]
    for name in [given] if given else [manifest.settings.get("candidates")]:
        if name:
            yield from (Path(name).expanduser(), *(root / name for root in roots))
    if not given:
        for root in roots:
            processed = Workspace(root).processed(told.facts["dataset"])
            yield from (processed / f"{told.facts['candidates']}{suffix}" for suffix in (".jsonl", ".json"))


def _check_candidate_file(checks: Checks, told: Run, manifest: Manifest, path: Path) -> None:
    found = sha256(path)
    checks.equal("candidate file", f"the sha256 of {path} in metrics.json", told.facts["candidates_sha256"], found)
    checks.equal("candidate file", f"the sha256 of {path} in manifest.json", manifest.inputs.get("candidates"), found)


def _examples(path: Path, told: Run, manifest: Manifest) -> tuple[dict[str, RankingExample], int]:
    """What the RUN had to rank, all of the file or the slice of a --limit, by id; and how many the file holds."""
    named = CACHE_NAME.fullmatch(path.name)
    if named is None:
        examples = read_candidates(path)
    else:
        root = path.resolve().parents[3]
        window = int(named["window"] or manifest.settings.get("min_inter", 10))
        examples = load_candidates(path, Interactions.load(Workspace(root), told.facts["dataset"]), window)
    chosen = sliced(examples, manifest.settings.get("limit"), manifest.settings.get("seed", 42))
    return {example.example_id: example for example in chosen}, len(examples)


def _allowed(checks: Checks, told: Run, path: Path, examples: Mapping[str, RankingExample]) -> Allowed | None:
    """What lists may hold that no line of the candidate file spells out; None where all are spelt out."""
    spelt = any(example.candidates for example in examples.values())
    splits = {example.split for example in examples.values()}
    return None if spelt or not splits else allowed_items(checks, path, told.facts["dataset"], min(splits))


def _table(verified: Verified) -> Table:
    facts = verified.run.facts
    return Table(
        title=f"{verified.run.label}, {facts['dataset']}, {facts['candidates']}",
        columns=("check", "looked at", "differences"),
        rows=verified.checks.rows(),
        note=f"Taken on trust: {'; '.join(trust)}." if (trust := verified.checks.on_trust) else "",
    )
