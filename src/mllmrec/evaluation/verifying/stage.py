"""The stage `verify`: does a RUN tell what its rankings show?

A second implementation, which shares no line with the first, takes rankings.jsonl and the frozen candidate file, works
out where every target came out, every metric, the chance level and the reference's files anew in plain Python, and
holds each against what the RUN tells. It fails on any difference, and on rankings that aren't the whole candidate
file, each example once. Of a ranking of the whole catalogue only the best are kept: a place beyond them is held against
what is kept and else taken on trust, which the table says.

The reference implementation's CSV and JSON files of a RUN, held against its rankings.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.drawing import read_candidates, sliced
from mllmrec.data.candidates.files import ranked_protocol
from mllmrec.data.candidates.legacy import CACHE_NAME, load_candidates
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.comparison.pairing import run_named
from mllmrec.evaluation.ranking.runs import Run, require_finished
from mllmrec.evaluation.verifying.checks import Checks, read_figures, read_manifest, read_settings
from mllmrec.evaluation.verifying.metrics import check_metrics, mean, value_of
from mllmrec.evaluation.verifying.provenance import check_files, check_inputs, check_manifest
from mllmrec.evaluation.verifying.rankings import Allowed, Placed, allowed_items, check_rankings
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.evaluation import RunSettings, VerifySettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import Workspace, sha256

CHECK = "reference files"
HEADER = ["index", "target_id", "pred_topk", "hit", "rank"]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A RUN and what came out of its checks."""

    label: str
    folder: Path
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
        warnings=tuple(f"{each.folder}: {told}" for each in wrong for told in each.checks.told()),
        facts={str(each.folder): each.checks.differences for each in verified},
        passed=not wrong,
    )


def verify(folder: Path, workspace: Workspace, candidates: str | None = None) -> Verified:
    """Check one finished RUN; `candidates` names its candidate file where it isn't found by itself."""
    require_finished(folder)
    checks = Checks()
    manifest, facts = read_manifest(checks, folder), read_figures(checks, folder)
    settings = read_settings(checks, manifest) if manifest else None
    if manifest is None or facts is None or settings is None:
        return Verified(label=folder.name, folder=folder, checks=checks)
    check_files(checks, folder, manifest)
    told = Run(folder=folder, facts=facts)
    path = _candidate_file(told, settings, workspace, candidates)
    _check_candidate_file(checks, told, manifest, path)
    examples, num_lists = _examples(path, told, settings)
    _check_figures(checks, told, manifest, settings, path, examples)
    check_manifest(checks, facts, manifest, settings, num_lists)
    check_inputs(checks, facts, manifest, _roots(told, workspace))
    title = f"{told.label}, {facts['dataset']}, {facts['candidates']}"
    return Verified(label=title, folder=folder, checks=checks)


def _check_figures(
    checks: Checks,
    told: Run,
    manifest: Manifest,
    settings: RunSettings,
    path: Path,
    examples: Mapping[str, RankingExample],
) -> None:
    """Rankings, what follows from them, and the reference's files."""
    facts, rankings = told.facts, told.folder / "rankings.jsonl"
    if not rankings.exists():
        checks.look("every example once", False, f"{rankings.name} is missing")
        return
    generated, keep = facts["method"] == "generate", max(facts["top_k"])
    allowed = _allowed(checks, told, path, examples)
    users = check_rankings(checks, rankings, examples, generated=generated, keep=keep, allowed=allowed)
    if beyond := sum(user.on_trust for user in users):
        checks.on_trust.append(
            f"the places of {beyond:,} of {len(users):,} targets, beyond what is kept of their lists"
        )
    check_metrics(checks, facts, users, settings.seed)
    nowhere = sum(not user.positions for user in users)
    expected = {"users": len(users), "unranked": nowhere}
    checks.equal("counts and shares", "counts in manifest.json", manifest.counts, expected)
    check_reference_files(checks, told.folder, facts, users)


def _candidate_file(told: Run, settings: RunSettings, workspace: Workspace, given: str | None) -> Path:
    """Of the places where it may lie, the first file with the hash that was told, else the first there is."""
    there = [path for path in _places(told, settings, workspace, given) if path.is_file()]
    if not there:
        raise ArtifactError(
            f"{told.folder} ranked {told.facts['candidates']}, which is no longer there. Expected the frozen candidate "
            "file beside the data; give --root, name it with --candidates, or make it with `mllmrec candidates`."
        )
    return next((path for path in there if sha256(path) == told.facts["candidates_sha256"]), there[0])


def _places(told: Run, settings: RunSettings, workspace: Workspace, given: str | None) -> Iterator[Path]:
    """The file given, the one that the RUN's settings name, or that of its name beside the data."""
    roots = _roots(told, workspace)
    for name in [given] if given else [settings.candidates]:
        if name:
            yield from (Path(name).expanduser(), *(root / name for root in roots))
    if not given:
        for root in roots:
            processed = Workspace(root).processed(told.facts["dataset"])
            yield from (processed / f"{told.facts['candidates']}{suffix}" for suffix in (".jsonl", ".json"))


def _roots(told: Run, workspace: Workspace) -> list[Path]:
    """The root that was given, and the one that the RUN lies under."""
    return [workspace.root, *told.folder.resolve().parents[3:4]]


def _check_candidate_file(checks: Checks, told: Run, manifest: Manifest, path: Path) -> None:
    found = sha256(path)
    checks.equal("candidate file", f"the sha256 of {path} in metrics.json", told.facts["candidates_sha256"], found)
    checks.equal("candidate file", f"the sha256 of {path} in manifest.json", manifest.inputs.get("candidates"), found)
    if path.stem == told.facts["candidates"]:
        checks.equal("candidate file", "protocol", told.facts["protocol"], ranked_protocol(path))


def _examples(path: Path, told: Run, settings: RunSettings) -> tuple[dict[str, RankingExample], int]:
    """What the RUN had to rank, all of the file or the slice of a --limit, by id; and how many the file holds."""
    named = CACHE_NAME.fullmatch(path.name)
    if named is None:
        examples = read_candidates(path)
    else:
        root = path.resolve().parents[3]
        window = int(named["window"] or settings.min_inter)
        examples = load_candidates(path, Interactions.load(Workspace(root), told.facts["dataset"]), window)
    chosen = sliced(examples, settings.limit, settings.seed)
    return {example.example_id: example for example in chosen}, len(examples)


def _allowed(checks: Checks, told: Run, path: Path, examples: Mapping[str, RankingExample]) -> Allowed | None:
    """What lists may hold that no line of the candidate file spells out; None where all are spelt out."""
    spelt = any(example.candidates for example in examples.values())
    splits = {example.split for example in examples.values()}
    return None if spelt or not splits else allowed_items(checks, path, told.facts["dataset"], min(splits))


def _table(verified: Verified) -> Table:
    return Table(
        title=verified.label,
        columns=("check", "looked at", "differences"),
        rows=verified.checks.rows(),
        note=f"Taken on trust: {'; '.join(trust)}." if (trust := verified.checks.on_trust) else "",
    )


def check_reference_files(checks: Checks, folder: Path, facts: Mapping[str, Any], users: Sequence[Placed]) -> None:
    """Both files of each K, and that no file of another K lies beside them."""
    stems = {k: f"{facts['name']}_{facts['dataset']}_top{k}" for k in facts["top_k"]}
    expected = {f"{stem}.{suffix}" for stem in stems.values() for suffix in ("csv", "json")}
    there = {path.name for path in folder.glob(f"{facts['name']}_{facts['dataset']}_top*.*")}
    for name in sorted(expected | there):
        wrong = "is missing" if name in expected else "belongs to no K of the RUN"
        checks.look(CHECK, name in expected & there, f"{name} {wrong}")
    for k, stem in stems.items():
        if f"{stem}.csv" in there:
            _check_csv(checks, folder / f"{stem}.csv", users, k)
        if f"{stem}.json" in there:
            _check_json(checks, folder / f"{stem}.json", facts, users, k)


def _check_csv(checks: Checks, path: Path, users: Sequence[Placed], k: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    checks.equal(CHECK, f"the header of {path.name}", header, HEADER)
    checks.equal(CHECK, f"the number of rows of {path.name}", len(rows), len(users))
    for index, (row, user) in enumerate(zip(rows, users, strict=False), 1):
        checks.equal(CHECK, f"row {index} of {path.name}", row, _row(index, user, k))


def _row(index: int, user: Placed, k: int) -> list[str]:
    top = list(user.best[:k])
    rank = str(top.index(user.target_id) + 1) if user.target_id in top else ""
    return [str(index), user.target_id, str(top), "1" if rank else "0", rank]


def _check_json(checks: Checks, path: Path, facts: Mapping[str, Any], users: Sequence[Placed], k: int) -> None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        checks.look(CHECK, False, f"{path.name} is no JSON ({error})")
        return
    if not checks.look(CHECK, isinstance(told, dict), f"{path.name} is no JSON object"):
        return
    size = facts["world_size"]
    plain = {"dataset": facts["dataset"], "top_k": k, "total_test": len(users)}
    plain |= {"world_size": size, "distributed": size > 1}
    for key, value in plain.items():
        checks.equal(CHECK, f"{key} of {path.name}", told.get(key), value)
    for key, name in (("HR@K", f"HR@{k}"), ("NDCG@K", f"NDCG@{k}")):
        found: float | str = mean([value_of(name, user.positions) for user in users])
        if key == "HR@K" and name in facts["vacuous"]:
            found = "vacuous"
        given = told.get(key)
        alike = given == found or (isinstance(given, float) and isinstance(found, float) and abs(given - found) < 1e-9)
        checks.look(CHECK, alike, f"{key} of {path.name} is told as {given!r} and comes out as {found!r}")
