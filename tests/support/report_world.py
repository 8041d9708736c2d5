"""A made-up dataset with everything that a report can show, and titles that try to be markup."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from toy_world import ToyWorld, write_toy_world

from mllmrec.data.candidates.drawing import questions, read_candidates
from mllmrec.data.candidates.stage import run as candidates
from mllmrec.data.draws import uniform
from mllmrec.data.prepare import run as prepare
from mllmrec.data.sequences import Interactions
from mllmrec.evaluation.baselines.stage import run as baselines
from mllmrec.evaluation.ranking.rankings import ranking_of
from mllmrec.evaluation.ranking.runs import run_folder, write_run
from mllmrec.models.base import Picture
from mllmrec.records import RankingExample
from mllmrec.settings.data import CandidatesSettings, PrepareSettings
from mllmrec.settings.evaluation import BaselinesSettings, EvaluateSettings
from mllmrec.settings.texts import CaptionSettings
from mllmrec.settings.training import GrpoSettings, SftSettings
from mllmrec.storage.manifests import write_manifest
from mllmrec.storage.workspace import Workspace, sha256, write_json, write_jsonl

DATASET, WINDOW, USERS, ITEMS = "world", 5, 60, 48
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)> & $x_1$ | *bold* `code` [ITEM_1]'
LOUD = '</p><svg onload="alert(3)">a picture of <b>nothing</b></svg>'
WORDS = "Step 1: They like lanterns.\nStep 2: </article><script>alert(4)</script>"
MODELS = {"tiny": 0.5, "sft": 2.0, "grpo": 2.0, "grpo-cot": 4.0}
"""RUNs, and what their scores add to the target's; sft and grpo rank alike."""


def make_report_world(root: Path) -> Workspace:
    """The whole workspace."""
    workspace = make_data(root)
    for num_neg in (9, 19):
        common = {"dataset": DATASET, "root": str(root), "num_neg": num_neg, "min_inter": WINDOW}
        candidates(CandidatesSettings(**common), workspace)
        baselines(BaselinesSettings(**common), workspace)
    make_checkpoints(workspace)
    for name in MODELS:
        make_run(workspace, name)
    make_texts(workspace)
    return workspace


def make_data(root: Path) -> Workspace:
    """Sequences and titles, of which one is hostile."""
    raw, workspace = root / "raw", Workspace(root)
    write_toy_world(ToyWorld(num_items=ITEMS, num_users=USERS, length=(8, 11), popular=0.8), raw)
    with (raw / "titles.csv").open(encoding="utf-8", newline="") as file:
        header, first, *rows = csv.reader(file)
    with (raw / "titles.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, [first[0], HOSTILE, first[2]], *rows])
    source = {"source": "pairs", "raw": str(raw), "titles": str(raw / "titles.csv")}
    prepare(PrepareSettings(dataset=DATASET, root=str(root), min_inter=WINDOW, **source), workspace)
    return workspace


def make_run(
    workspace: Workspace,
    name: str,
    dataset: str = DATASET,
    *,
    strength: float | None = None,
    details: dict[str, Any] | None = None,
    **knobs: Any,
) -> Path:
    """A RUN whose log-probabilities are drawn by hash, the target's raised by the model's strength."""
    strength = MODELS[name] if strength is None else strength
    tag = {} if name == "tiny" else {"tag": name}
    settings = EvaluateSettings(
        dataset=dataset, root=str(workspace.root), min_inter=WINDOW, backbone="tiny", **tag, **knobs
    )
    path = workspace.dataset(dataset).candidates("test", "uni9", WINDOW, 42)
    seed = "sft" if name == "grpo" else name
    folder = run_folder(settings, workspace, name, path)
    rankings = (ranking_of(example, scores_of(example, seed, strength)) for example in read_candidates(path))
    write_run(
        folder,
        rankings,
        settings,
        name=name,
        candidates=path,
        inputs={"candidates": sha256(path)},
        started=time.monotonic(),
        seconds=2.0,
        details=details,
    )
    return folder


def scores_of(example: RankingExample, name: str, strength: float) -> list[float]:
    return [
        -8.0 + 4 * uniform(1, name, f"{example.example_id} {item}") + strength * (item == example.target_id)
        for item in example.candidates
    ]


def make_checkpoints(workspace: Workspace) -> None:
    """What training leaves behind, but for the weights: an SFT run, a plain GRPO run and an inflated one with hints."""
    common = {"dataset": DATASET, "root": str(workspace.root), "min_inter": WINDOW}
    sft = workspace.checkpoint(DATASET, "sft")
    rows = [{"step": step, "loss": 2 - step / 100, "num_tokens": 1000 * step} for step in range(10, 60, 10)]
    rows += [{"step": step, "valid_NDCG@3": 0.2 + step / 100, "valid_HR@1": 0.1 + step / 100} for step in (0, 20, 50)]
    write_jsonl(sft / "training.jsonl", rows)
    details = {"best_step": 50, "prompt_format": {"window": WINDOW, "hint_share": 0.0}}
    write_manifest(sft, SftSettings(**common), {}, started=time.monotonic() - 90, details=details)
    for tag, share in (("grpo", 0.0), ("grpo-cot", 0.1)):
        folder = workspace.checkpoint(DATASET, tag)
        write_jsonl(folder / "training.jsonl", [{"step": step, "reward": step / 40, "kl": 0.01} for step in (20, 40)])
        details = {"best_step": 0, "prompt_format": {"window": WINDOW, "hint_share": share}}
        settings = GrpoSettings(**common, sft_tag="sft", tag=tag, use_cot=share > 0)
        write_manifest(folder, settings, {}, started=time.monotonic() - 30, details=details)
    slopes = {"reward_slope": [0.5, 0.25, 0.75], "valid_slope": [0.0, -0.125, 0.125], "alarm": True}
    still = {"valid_NDCG@3": 0.5, "valid_HR@1": 0.3}
    timeline = [{"step": step, "reward": step / 40, **still, "valid_reward": 0.2 + step / 100} for step in (0, 20, 40)]
    timeline[-1] |= {**slopes, "chosen_positions": [0.4, 0.3, 0.2, 0.1]}
    write_jsonl(folder / "metrics.jsonl", timeline)


def make_texts(workspace: Workspace) -> None:
    """Captions with the cost of their teacher, and assessed traces, two of them left out."""
    interactions = Interactions.load(workspace, DATASET)
    items = interactions.catalogue.ids[: ITEMS // 2]
    rows = {item: {"title": "", "caption": LOUD if item == items[0] else f"Number {item} on blue."} for item in items}
    write_json(workspace.dataset(DATASET).captions, rows)
    usage = {"calls": len(items), "prompt_tokens": 5000, "completion_tokens": 700}
    details = {"usage": usage, "spent": {"money": 0.25}}
    settings = CaptionSettings(dataset=DATASET, root=str(workspace.root))
    write_manifest(workspace.dataset(DATASET).captions, settings, {}, started=time.monotonic(), details=details)
    windows, _ = questions(interactions.train, "train", WINDOW)
    write_json(workspace.dataset(DATASET).assessed_cot, list(_assessed(windows)))


def _assessed(windows: Sequence[RankingExample]) -> Iterator[dict[str, object]]:
    for number, example in enumerate(windows):
        keep = number > 1
        yield {
            "line_idx": number,
            "user_id": example.user_id,
            "history_items": [{"item_id": item, "title": ""} for item in example.history],
            "target_item": {"item_id": example.target_id, "title": "A thing"},
            "reasoning": WORDS if number == 0 else f"{example.user_id} likes blue things.",
            "example_id": example.example_id,
            "answer_conditioned": False,
            "scores": {"modality": 0.75, "lift": None, "prediction": None},
            "confidence": 0.5 + number / 200 if keep else 0.0,
            "keep": keep,
            "reason": None if keep else "has too few words",
        }


def picture_of(item: str) -> Picture | None:
    """A plain picture for every second item."""
    import numpy as np

    if int(item) % 2:
        return None
    rgb = np.full((48, 32, 3), int(item) % 256, dtype=np.uint8)
    assert Image.fromarray(rgb).size == (32, 48)
    return Picture(rgb=rgb, encoded=b"", media_type="image/png")


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
