"""Four users of a made-up shop: their scores tie in every way, and their figures are worked out by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mllmrec.data.candidates.drawing import candidate_rows
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.records import RankingExample
from mllmrec.settings.data import CandidatesSettings
from mllmrec.settings.evaluation import BaselinesSettings, RunSettings
from mllmrec.storage.manifests import Manifest, vouched, write_manifest, write_sealed
from mllmrec.storage.workspace import Workspace, write_jsonl

ITEMS = ("a", "b", "c", "d")
SCORES = {"1": (3.0, 2.0, 1.0, 0.0), "2": (1.0, 1.0, 0.0, 0.0), "3": (1.0, 1.0, 1.0, 0.0), "4": (0.0, 0.0, 0.0, 0.0)}
TARGETS = {"1": "a", "2": "b", "3": "d", "4": "c"}

WriteRun = Callable[..., Run]


def example_of(user: str, target: str, candidates: Sequence[str] = ITEMS) -> RankingExample:
    return RankingExample(
        example_id=f"example{user}",
        user_id=user,
        history=("x", "y"),
        candidates=tuple(candidates),
        target_id=target,
        split="test",
    )


def as_baseline(settings: RunSettings) -> BaselinesSettings:
    """The settings of a RUN as the verb has them that made it."""
    return BaselinesSettings(**{name: getattr(settings, name) for name in RunSettings.model_fields}, names=("random",))


def history_of(*items: str) -> RankingExample:
    """A question about a history, for what scores any items."""
    key = " ".join(items) or "nothing"
    return RankingExample(example_id=key, user_id="9", history=items, candidates=(), target_id="a", split="test")


def freeze_lists(workspace: Workspace, examples: Iterable[RankingExample]) -> Path:
    """Write lists as the shop's test_uni3_w3_s42.jsonl, with the manifest that vouches for them."""
    path = workspace.dataset("shop").candidates("test", "uni3", 3, 42)
    write_jsonl(path, candidate_rows(examples))
    settings = CandidatesSettings(dataset="shop", root=str(workspace.root), num_neg=3, min_inter=3)
    write_manifest(path, settings, {}, started=time.monotonic())
    return path


def vouch_again(folder: Path) -> None:
    """Let the manifest of a RUN vouch for its files as they are now, as if they had been written so."""
    manifest = Manifest.read(folder)
    assert manifest is not None
    write_sealed(folder, replace(manifest, outputs=vouched(folder, [folder / name for name in manifest.outputs])))
