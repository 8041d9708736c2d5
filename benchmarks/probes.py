"""What `mllmrec probe` costs: scorings as multiples of one evaluation, and the time from scores to figures.

    OMP_NUM_THREADS=1 python benchmarks/probes.py

A made-up dataset with captions and traces, so that every probe applies, and a small random backbone. Seconds of each
probe are set against the seconds of the plain prompts in the same run; the second part takes random scores of 6,040
users under every condition and counts processor seconds.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np

from mllmrec.data import prepare
from mllmrec.data.candidates import stage as candidates_stage
from mllmrec.data.candidates.drawing import questions
from mllmrec.data.sequences import Interactions, Line
from mllmrec.demo.habits import write_world
from mllmrec.demo.world import World
from mllmrec.evaluation.probing import stage
from mllmrec.evaluation.probing.findings import Study, findings
from mllmrec.evaluation.probing.plan import HintedExamples, make_plan
from mllmrec.records import RankingExample, example_id
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.settings.evaluation import PROBES, ProbeSettings
from mllmrec.settings.training import BackboneSettings
from mllmrec.storage.workspace import Workspace, read_json, write_json
from mllmrec.training import backbones

USERS, MANY = 64, 6040


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        make_dataset(workspace)
        settings = ProbeSettings(dataset="world", root=folder, backbone="tiny", min_inter=6, limit=USERS)
        started = time.monotonic()
        artifact = stage.run(settings, workspace).artifact
        assert artifact is not None
        facts = read_json(artifact)
        tell(facts, time.monotonic() - started)
    started = time.process_time()
    findings(random_study(), MANY)
    print(f"figures of {MANY} users under 15 conditions: {time.process_time() - started:.1f} processor seconds")


def make_dataset(workspace: Workspace) -> None:
    """Sequences, captions, traces, candidates and a backbone of random weights."""
    raw, folder = workspace.root / "raw", str(workspace.root)
    write_world(World(num_items=200, num_users=2 * USERS), raw)
    source = {"source": "pairs", "raw": str(raw / "pairs.csv"), "titles": str(raw / "titles.csv")}
    prepare.run(PrepareSettings(dataset="world", root=folder, min_inter=6, **source), workspace)
    candidates_stage.run(CandidatesSettings(dataset="world", root=folder, min_inter=6), workspace)
    backbones.run(BackboneSettings(dataset="world", root=folder, width=32, layers=2, vocab=800), workspace)
    interactions = Interactions.load(workspace, "world")
    captions = {item: {"title": "t", "caption": f"a picture of kind {item[-1]}"} for item in interactions.catalogue}
    write_json(workspace.dataset("world").captions, captions)
    write_json(workspace.dataset("world").pseudo_cot, [trace(example) for example in train_windows(interactions)])


def train_windows(interactions: Interactions) -> list[RankingExample]:
    return questions(interactions.training_lines(), "train", 6)[0]


def trace(example: RankingExample) -> dict[str, object]:
    return {
        "example_id": example.example_id,
        "line_idx": 0,
        "user_id": example.user_id,
        "history_items": [{"item_id": item, "title": "t"} for item in example.history],
        "target_item": {"item_id": example.target_id, "title": "t"},
        "reasoning": "Step 1: goes on with what came last.\nStep 2: stays with one theme.",
    }


def tell(facts: dict[str, Any], seconds: float) -> None:
    cost, probes = facts["cost"], facts["probes"]
    one = cost["seconds_of_one_evaluation"]
    for name, found in probes.items():
        print(f"{name}: {found['evaluations']:g} evaluations, {found['seconds'] / one:.2f} times their seconds")
    print(
        f"all probes of {facts['num_users']} users: {cost['evaluations']:g} evaluations, plain prompts included, "
        f"{cost['seconds'] / one:.1f} times the {one:.1f} s of one; the whole stage {seconds:.1f} s"
    )


def random_study() -> Study:
    """Random scores of many users under every condition of the lists."""
    rng = np.random.default_rng(0)
    items = [str(item) for item in range(3000)]
    users = []
    for user in range(MANY):
        drawn = [items[index] for index in rng.choice(len(items), 19, replace=False)]
        history, candidates = tuple(drawn[:9]), tuple(drawn[9:])
        key = example_id(str(user), candidates[0], history)
        users.append(
            RankingExample(
                example_id=key,
                user_id=str(user),
                history=history,
                candidates=candidates,
                target_id=candidates[0],
                split="test",
            )
        )
    captions = {item: f"picture {item}" for item in items}
    plan = make_plan(PROBES, users, captions, HintedExamples(examples=[], hints={}), rotations=10)
    names = {chunk.condition.name for chunk in plan.chunks()}
    scores = {name: list(rng.normal(size=(MANY, 10))) for name in sorted(names)}
    lines = [Line(user_id="u", items=(item,) * (1 + int(item) % 90), line_index=0) for item in items]
    return Study(
        plan=plan,
        scores=scores,
        seconds=dict.fromkeys(names, 1.0),
        lines=lines,
        split_lines=[],
        top_k=(3, 5, 10),
        seed=42,
    )


if __name__ == "__main__":
    main()
