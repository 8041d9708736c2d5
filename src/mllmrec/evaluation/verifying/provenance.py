"""Checks of a RUN's provenance: its settings, the files that it was made from, and its speed.

metrics.json and manifest.json report part of it twice, and the files that were read can be hashed again. A file that is
gone or was changed later is taken on trust, and so is what left no trace: packages, the machine, the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllmrec.evaluation.verifying.checks import Checks
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.manifests import Manifest, altered, hash_model
from mllmrec.storage.workspace import Workspace, sha256

CHECK, INPUTS, SPEED, FILES = "manifest.json", "inputs", "speed", "files as they were written"
RULE = "users by hash of seed, split and user"
VERSION, REVISION, MOMENT = re.compile(r"\d"), re.compile(r"[0-9a-f]{40}"), re.compile(r"[-0-9T:]{19}Z")
OPERATIONAL = "what only decides where and how fast a RUN was made (batch, device, workers, packages, revision, time)"


def check_files(checks: Checks, folder: Path, manifest: Manifest) -> None:
    """The manifest's seal and the hash of each file that it vouches for; a RUN of an earlier version has neither."""
    if not manifest.outputs and not manifest.seal:
        checks.on_trust.append("that its files are as they were written, which an earlier version didn't note")
        return
    checks.look(FILES, manifest.sealed() == manifest, "manifest.json was edited after it was written")
    changed = altered(folder, manifest, thorough=True)
    for name in manifest.outputs:
        fate = "was changed since" if (folder / name).exists() else "is gone"
        checks.look(FILES, name not in changed, f"{name} {fate}")
    for name in ("rankings.jsonl", "metrics.json"):
        checks.look(FILES, name in manifest.outputs, f"the manifest doesn't vouch for {name}")


def check_manifest(
    checks: Checks, facts: Mapping[str, Any], manifest: Manifest, settings: RunSettings, num_lists: int
) -> None:
    """The manifest against metrics.json and against itself; `num_lists` counts all lists of the candidate file."""
    expected = {
        "dataset": facts["dataset"],
        "top_k": facts["top_k"],
        "method": facts["method"],
        "seed": facts["interval"]["seed"],
    }
    reported = {"method": "score"} | settings.model_dump(mode="json")
    for name, value in expected.items():
        checks.equal(CHECK, f"{name} of settings", reported[name], value)
    complete = settings.completed(manifest.result_settings)
    for name, value in settings.result_settings().items():
        checks.equal(CHECK, f"{name} of result_settings", complete.get(name), value)
    checks.equal(CHECK, "details", manifest.details, {name: facts[name] for name in ("tuning",) if name in facts})
    expected_slice = None
    if settings.limit is not None and settings.limit < num_lists:
        expected_slice = {"of": num_lists, "by": f"{RULE}, seed {settings.seed}"}
    checks.equal("counts and shares", "slice", facts.get("slice"), expected_slice)
    _check_kinds(checks, manifest)
    _check_speed(checks, facts)
    checks.on_trust.append(OPERATIONAL)


def check_inputs(checks: Checks, facts: Mapping[str, Any], manifest: Manifest, roots: Sequence[Path]) -> None:
    """The hash of each file and model that the RUN was made from, where it is still under one of `roots`.

    What changed or went since is no fault of the RUN: it is taken on trust, which the table's note says.
    """
    gone, changed = [], []
    for role, reported in manifest.inputs.items():
        paths = _read_from(role, facts, roots)
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            gone += [role] * bool(paths)
            continue
        same = reported == (hash_model(path) if path.is_dir() else sha256(path))
        checks.look(INPUTS, True, "")
        changed += [role] * (not same)
    if "model" in manifest.inputs:
        checks.look(INPUTS, isinstance(facts.get("model"), str), "metrics.json doesn't tell which model ranked")
        checks.equal(INPUTS, "whether adapters ranked", bool(facts.get("adapter")), "adapter" in manifest.inputs)
    for roles, what in ((gone, "no longer there"), (changed, "changed since the RUN was made")):
        if roles:
            checks.on_trust.append(f"what it read of {', '.join(roles)}, {what}")


def _read_from(role: str, facts: Mapping[str, Any], roots: Sequence[Path]) -> list[Path]:
    """The paths at which the input of a role may be; none for an input that is no file."""
    if role in ("model", "adapter"):
        return [Path(facts[role])] if isinstance(facts.get(role), str) else []
    workspaces, dataset = [Workspace(root) for root in roots], facts["dataset"]
    if role in ("train", "valid"):
        return [workspace.split(dataset, role) for workspace in workspaces]
    named = {"titles": Workspace.titles, "captions": Workspace.captions}.get(role)
    return [named(workspace, dataset) for workspace in workspaces] if named else []


def _check_kinds(checks: Checks, manifest: Manifest) -> None:
    """Values that nothing else reports have at least the right form."""
    kinds = {
        "packages": all(VERSION.match(version) for version in manifest.packages.values()),
        "revision": manifest.revision is None or bool(REVISION.fullmatch(manifest.revision)),
        "finished_at": bool(MOMENT.fullmatch(manifest.finished_at)),
        "seconds": manifest.seconds >= 0,
    }
    for name, right in kinds.items():
        checks.look(CHECK, right, f"{name} is missing or of another kind")


def _check_speed(checks: Checks, facts: Mapping[str, Any]) -> None:
    """Users a second are the users by the seconds, both as they were rounded."""
    seconds, speed, users = facts["seconds"], facts["users_per_second"], facts["num_users"]
    slowest, fastest = users / (seconds + 0.0006) - 0.06, users / max(seconds - 0.0006, 1e-9) + 0.06
    reported = f"users_per_second is told as {speed!r}, and {users} users in {seconds!r} seconds"
    checks.look(SPEED, slowest <= speed <= fastest, f"{reported} are about {users / max(seconds, 1e-9):.1f}")
