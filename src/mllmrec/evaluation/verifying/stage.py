"""The stage `verify`: do the figures of a RUN follow from its rankings?

A second implementation, which shares no line with the first, reads rankings.jsonl and the frozen candidate file,
computes every target's position, every metric, the chance level and the reference implementation's CSV and JSON files
anew in plain Python, and compares them with those of the RUN. It fails on any difference, and on rankings that aren't
the whole candidate file, each example once. Of a ranking of the whole catalogue only the best are kept: a position
beyond them is compared with what is kept and else taken on trust, which the table's note says.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.drawing import read_candidates, sliced
from mllmrec.data.candidates.files import ranked_protocol
from mllmrec.data.candidates.legacy import load_candidates
from mllmrec.data.candidates.protocols import CacheName
from mllmrec.data.sequences import Interactions
from mllmrec.errors import ArtifactError
from mllmrec.evaluation.comparison.pairing import run_named
from mllmrec.evaluation.ranking.runs import Run, ranked_file, require_finished
from mllmrec.evaluation.verifying.blends import check_blend
from mllmrec.evaluation.verifying.checks import (
    Checks,
    check_files,
    check_inputs,
    check_manifest,
    read_figures,
    read_manifest,
    read_settings,
)
from mllmrec.evaluation.verifying.metrics import check_metrics, mean, value_of
from mllmrec.evaluation.verifying.rankings import (
    AllowedItems,
    RankedTarget,
    allowed_items,
    check_rankings,
    check_thoughts,
)
from mllmrec.records import RankingExample, Summary, Table
from mllmrec.settings.evaluation import BlendedRunSettings, RunSettings, VerifySettings
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import DatasetFiles, Workspace, sha256

CHECK = "reference files"
HEADER = ["index", "target_id", "pred_topk", "hit", "rank"]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A RUN with the result of its checks."""

    label: str
    folder: Path
    checks: Checks


def run(settings: VerifySettings, workspace: Workspace) -> Summary:
    """Check RUN folders, given by path or by path under the root; the summary has not passed when anything differs."""
    verified = [verify(run_named(word, workspace), workspace, settings.candidates) for word in settings.runs]
    wrong = [run for run in verified if not run.checks.passed]
    looked = sum(sum(run.checks.looked_at.values()) for run in verified)
    return Summary(
        headline=(
            f"{len(wrong)} of {len(verified)} RUNs differ from what a second implementation gets; the notes say where."
            if wrong
            else f"{len(verified)} RUN{'s' * (len(verified) > 1)} verified: {looked:,} comparisons, no difference."
        ),
        tables=tuple(_table(run) for run in verified),
        warnings=tuple(f"{run.folder}: {message}" for run in wrong for message in run.checks.messages()),
        facts={str(run.folder): run.checks.differences for run in verified},
        passed=not wrong,
    )


def verify(folder: Path, workspace: Workspace, candidates: str | None = None) -> Verified:
    """Check one finished RUN; `candidates` names its candidate file where it isn't beside the data."""
    require_finished(folder)
    checks = Checks()
    manifest, facts = read_manifest(checks, folder), read_figures(checks, folder)
    settings = read_settings(checks, manifest) if manifest else None
    if manifest is None or facts is None or settings is None:
        return Verified(label=folder.name, folder=folder, checks=checks)
    check_files(checks, folder, manifest)
    run = Run(folder=folder, facts=facts)
    path = _candidate_file(run, settings, workspace, candidates)
    _check_candidate_file(checks, run, manifest, path)
    examples, num_lists = _examples(path, run, settings)
    _check_figures(checks, run, manifest, settings, path, examples, _roots(run, workspace))
    check_manifest(checks, facts, manifest, settings, num_lists)
    check_inputs(checks, facts, manifest, _roots(run, workspace))
    title = f"{run.label}, {facts['dataset']}, {facts['candidates']}"
    return Verified(label=title, folder=folder, checks=checks)


def _check_reference_files(
    checks: Checks, folder: Path, facts: Mapping[str, Any], users: Sequence[RankedTarget]
) -> None:
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


def _check_figures(
    checks: Checks,
    run: Run,
    manifest: Manifest,
    settings: RunSettings,
    path: Path,
    examples: Mapping[str, RankingExample],
    roots: Sequence[Path],
) -> None:
    """Rankings, what follows from them, and the reference's files."""
    facts, rankings = run.facts, run.folder / "rankings.jsonl"
    if not rankings.exists():
        checks.look("every example once", False, f"{rankings.name} is missing")
        return
    generated, keep = facts["method"] == "generate", max(facts["top_k"])
    allowed = _allowed(checks, run, path, examples)
    users = check_rankings(checks, rankings, examples, generated=generated, keep=keep, allowed=allowed)
    if beyond := sum(user.on_trust for user in users):
        checks.on_trust.append(
            f"the places of {beyond:,} of {len(users):,} targets, beyond what is kept of their lists"
        )
    check_metrics(checks, facts, users, settings.seed)
    check_thoughts(checks, run.folder / "thoughts.jsonl", examples.keys(), facts.get("thoughts"))
    if isinstance(settings, BlendedRunSettings):
        check_blend(checks, run.folder, facts, manifest, settings, roots)
    nowhere = sum(not user.positions for user in users)
    expected = {"users": len(users), "unranked": nowhere}
    checks.equal("counts and shares", "counts in manifest.json", manifest.counts, expected)
    _check_reference_files(checks, run.folder, facts, users)


def _candidate_file(run: Run, settings: RunSettings, workspace: Workspace, given: str | None) -> Path:
    """The candidate file given, or else the one that the RUN's settings name or that lies beside the data."""
    path = ranked_file(run, _roots(run, workspace), given or settings.candidates, only_named=bool(given))
    if path is None:
        raise ArtifactError(
            f"{run.folder} ranked {run.facts['candidates']}, which is no longer there. Expected the frozen candidate "
            "file beside the data; give --root, name it with --candidates, or make it with `mllmrec candidates`."
        )
    return path


def _roots(run: Run, workspace: Workspace) -> list[Path]:
    """The root that was given, and the one that the RUN lies under."""
    files = DatasetFiles.of(run.folder)
    return [workspace.root, *([files.workspace.root] if files is not None else [])]


def _check_candidate_file(checks: Checks, run: Run, manifest: Manifest, path: Path) -> None:
    digest = sha256(path)
    checks.equal("candidate file", f"the sha256 of {path} in metrics.json", run.facts["candidates_sha256"], digest)
    checks.equal("candidate file", f"the sha256 of {path} in manifest.json", manifest.inputs.get("candidates"), digest)
    if path.stem == run.facts["candidates"]:
        checks.equal("candidate file", "protocol", run.facts["protocol"], ranked_protocol(path))


def _examples(path: Path, run: Run, settings: RunSettings) -> tuple[dict[str, RankingExample], int]:
    """What the RUN had to rank, all of the file or the slice of a --limit, by id; and how many the file holds."""
    named = CacheName.parse(path)
    if named is None:
        examples = read_candidates(path)
    else:
        files = DatasetFiles.of(path) or DatasetFiles.of(run.folder)
        workspace = files.workspace if files is not None else Workspace(settings.root)
        window = named.window or settings.min_inter
        examples = load_candidates(path, Interactions.load(workspace, run.facts["dataset"]), window)
    chosen = sliced(examples, settings.limit, settings.seed)
    return {example.example_id: example for example in chosen}, len(examples)


def _allowed(checks: Checks, run: Run, path: Path, examples: Mapping[str, RankingExample]) -> AllowedItems | None:
    """What lists may hold that no line of the candidate file spells out; None where all are spelt out."""
    spelt = any(example.candidates for example in examples.values())
    splits = {example.split for example in examples.values()}
    return None if spelt or not splits else allowed_items(checks, path, run.facts["dataset"], min(splits))


def _table(verified: Verified) -> Table:
    return Table(
        title=verified.label,
        columns=("check", "looked at", "differences"),
        rows=verified.checks.rows(),
        note=f"Taken on trust: {'; '.join(trust)}." if (trust := verified.checks.on_trust) else "",
    )


def _check_csv(checks: Checks, path: Path, users: Sequence[RankedTarget], k: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    checks.equal(CHECK, f"the header of {path.name}", header, HEADER)
    checks.equal(CHECK, f"the number of rows of {path.name}", len(rows), len(users))
    for index, (row, user) in enumerate(zip(rows, users, strict=False), 1):
        checks.equal(CHECK, f"row {index} of {path.name}", row, _row(index, user, k))


def _row(index: int, user: RankedTarget, k: int) -> list[str]:
    top = list(user.best[:k])
    rank = str(top.index(user.target_id) + 1) if user.target_id in top else ""
    return [str(index), user.target_id, str(top), "1" if rank else "0", rank]


def _check_json(checks: Checks, path: Path, facts: Mapping[str, Any], users: Sequence[RankedTarget], k: int) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        checks.look(CHECK, False, f"{path.name} is no JSON ({error})")
        return
    if not checks.look(CHECK, isinstance(content, dict), f"{path.name} is no JSON object"):
        return
    size = facts["world_size"]
    plain = {"dataset": facts["dataset"], "top_k": k, "total_test": len(users)}
    plain |= {"world_size": size, "distributed": size > 1}
    for key, value in plain.items():
        checks.equal(CHECK, f"{key} of {path.name}", content.get(key), value)
    for key, name in (("HR@K", f"HR@{k}"), ("NDCG@K", f"NDCG@{k}")):
        expected_value: float | str = mean([value_of(name, user.positions) for user in users])
        if key == "HR@K" and name in facts["vacuous"]:
            expected_value = "vacuous"
        given = content.get(key)
        alike = given == expected_value or (
            isinstance(given, float) and isinstance(expected_value, float) and abs(given - expected_value) < 1e-9
        )
        checks.look(CHECK, alike, f"{key} of {path.name} is told as {given!r} and comes out as {expected_value!r}")
