"""What one `mllmrec probe` is about: the model, the candidate file, the plan, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmrec.artifacts import Workspace, read_json
from mllmrec.data.candidate_files import ranked_lists
from mllmrec.data.candidates import sliced
from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.models import ModelChoice, choose_model, prompt_content
from mllmrec.evaluation.probing.plan import Plan, hints_of, make_plan
from mllmrec.evaluation.probing.traces import trace_file
from mllmrec.evaluation.ranking import check_window, run_inputs, window_of
from mllmrec.evaluation.runs import candidate_file, run_folder
from mllmrec.manifests import Manifest, hash_files
from mllmrec.settings.probes import PROBES, ProbeSettings


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model on one candidate file, and what is asked of it; `asked` tells which knobs probes.json was made with."""

    settings: ProbeSettings
    choice: ModelChoice
    window: int
    candidates: Path
    artifact: Path
    inputs: Mapping[str, str]
    interactions: Interactions
    num_lists: int
    plan: Plan
    asked: Mapping[str, Any]

    @property
    def scores(self) -> Path:
        return self.artifact.with_name("probes.scores.jsonl")


def prepare(settings: ProbeSettings, workspace: Workspace) -> Job:
    """Everything but the model itself."""
    choice = choose_model(settings, workspace)
    window = window_of(settings, choice)
    candidates = candidate_file(settings.model_copy(update={"min_inter": window}), workspace)
    whole = settings.model_copy(update={"limit": None})
    artifact = run_folder(whole, workspace, choice.name, candidates) / "probes.json"
    train = hash_files(train=workspace.split(settings.dataset, "train"))
    interactions = Interactions.load(workspace, settings.dataset)
    examples = ranked_lists(candidates, interactions, window)
    check_window(examples, window, choice, candidates)
    asked = _asked(settings, artifact)
    users = sliced(examples, settings.limit or len(examples), settings.seed)
    traces = trace_file(workspace, settings.dataset) if "hint" in asked["probes"] else None
    plan = make_plan(
        asked["probes"],
        users,
        prompt_content(settings, workspace, choice, window)[0],
        hints_of(traces, interactions, users, settings.seed),
        rotations=asked["rotations"],
    )
    return Job(
        settings=settings,
        choice=choice,
        window=window,
        candidates=candidates,
        artifact=artifact,
        inputs=run_inputs(settings, workspace, candidates, choice) | train,
        interactions=interactions,
        num_lists=len(examples),
        plan=plan,
        asked=asked,
    )


def _asked(settings: ProbeSettings, artifact: Path) -> dict[str, Any]:
    """The probes asked for, and those that were made of the same users before: a later one adds to them."""
    names = ("probes", "rotations", "top_k", "limit")
    asked = settings.model_dump(mode="json", include=set(names))
    before = read_json(artifact)["asked"] if Manifest.read(artifact) and artifact.exists() else {}
    if settings.overwrite or before.get("limit", -1) != settings.limit:
        return asked
    if "position" not in settings.probes:
        asked["rotations"] = before["rotations"]
    asked["probes"] = [name for name in PROBES if name in (*settings.probes, *before["probes"])]
    return asked
