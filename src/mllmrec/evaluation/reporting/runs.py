"""The RUNs of a dataset as ladders: one for each candidate file and set of users, never two in one table.

On a ladder each RUN follows the one that it has to beat: first the baselines, the weakest first, then the models in
the order in which they are made from one another (backbone, SFT, SFT with hints, GRPO, GRPO with hints), and at the end
blends of them, the weakest first; a blend has to beat the best of its parts. Ladders of the test split come before
those of validation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mllmrec.data.candidates.protocols import Protocol
from mllmrec.evaluation.comparison.pairing import read_unaltered
from mllmrec.evaluation.comparison.tables import users_of
from mllmrec.evaluation.ranking.runs import Run
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import DatasetFiles, Workspace

STAGES = {"sft": 1, "merge": 1, "grpo": 2}


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One RUN with its manifest; `stage` and `hinted` say where a model comes from."""

    run: Run
    manifest: Manifest
    stage: int = 0
    hinted: bool = False

    @property
    def label(self) -> str:
        return self.run.label

    @property
    def is_model(self) -> bool:
        return self.manifest.verb == "evaluate"

    @property
    def is_blend(self) -> bool:
        return self.manifest.verb == "blend"

    @property
    def num_thoughts(self) -> int:
        """How many thoughts each user's scores are averaged over; 0 for a RUN without thoughts."""
        return int(self.run.facts.get("thoughts", {}).get("number", 0))

    @property
    def question(self) -> tuple[object, ...]:
        """What it has in common with a RUN of the same model that only thinks more, or less."""
        return self.run.facts["name"], sorted(self.manifest.inputs.items()), self.manifest.settings.get("score")

    @property
    def parts(self) -> dict[Path, str]:
        """Folders and names of the RUNs that a blend is made of; none for another RUN."""
        files = DatasetFiles.of(self.run.folder)
        if not self.is_blend or files is None:
            return {}
        parts = self.run.facts["blend"]["parts"]
        return {(files.workspace.root / part["test"]).resolve(): name for name, part in parts.items()}

    def value(self, metric: str) -> float:
        bounds = self.run.facts["metrics"].get(metric)
        return float(bounds["value"]) if bounds else 0.0


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """RUNs of the same users and candidates, each after the one that it has to beat."""

    rungs: tuple[Rung, ...]
    metric: str

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.rungs[0].run.facts

    @property
    def key(self) -> str:
        return f"{self.facts['candidates']}-{self.facts['num_users']}"

    @property
    def of_validation(self) -> bool:
        return str(self.facts["candidates"]).startswith("valid_")

    @property
    def models(self) -> tuple[Rung, ...]:
        return tuple(rung for rung in self.rungs if rung.is_model)

    @property
    def blends(self) -> tuple[Rung, ...]:
        return tuple(rung for rung in self.rungs if rung.is_blend)

    @property
    def top(self) -> Rung:
        """The last RUN that is no blend of others; the last of all where there are only blends."""
        return next((rung for rung in reversed(self.rungs) if not rung.is_blend), self.rungs[-1])

    @property
    def strongest_baseline(self) -> Rung | None:
        baselines = [rung for rung in self.rungs if not (rung.is_model or rung.is_blend)]
        return max(baselines, key=lambda rung: rung.value(self.metric), default=None)

    @property
    def steps(self) -> list[tuple[int, int]]:
        """(lower, upper) of each RUN but the first and the one that it has to beat."""
        return [(self._below(upper), upper) for upper in range(1, len(self.rungs))]

    @property
    def thinking(self) -> list[tuple[int, int]]:
        """(lower, upper) of each RUN after thoughts and the RUN of the same model without any."""
        return [
            (lower, upper)
            for upper, thinker in enumerate(self.rungs)
            for lower, plain in enumerate(self.rungs)
            if thinker.num_thoughts and not plain.num_thoughts and plain.is_model and plain.question == thinker.question
        ]

    def _below(self, upper: int) -> int:
        """The best part of a blend whose parts are all here, else the RUN before."""
        parts = self.rungs[upper].parts
        here = [number for number, rung in enumerate(self.rungs) if rung.run.folder.resolve() in parts]
        if not parts or len(here) < len(parts):
            return upper - 1
        return max(here, key=lambda number: self.rungs[number].value(self.metric))

    @cached_property
    def names(self) -> list[str]:
        """Every metric that one of the RUNs reports, in the order of tables."""
        reported = {name for rung in self.rungs for name in rung.run.facts["metrics"]}
        return sorted(reported, key=_order)

    def shown(self, metric: str) -> str:
        """The metric with its protocol, without which it means nothing."""
        return f"{metric}/{self.facts['protocol']}"


def read_ladders(workspace: Workspace, dataset: str, metric: str) -> tuple[list[Ladder], list[Path]]:
    """All ladders, the one with the most models first, and the RUN folders that are unfinished."""
    groups: dict[tuple[str, str, str], list[Rung]] = defaultdict(list)
    unfinished = []
    for folder in sorted(path for path in workspace.dataset(dataset).results.glob("*/*") if path.is_dir()):
        manifest = Manifest.read(folder)
        if manifest is None or not (folder / "metrics.json").exists():
            unfinished.append(folder)
            continue
        rung = _rung(workspace, dataset, folder, manifest)
        facts = rung.run.facts
        users = f"{users_of(facts)} {facts.get('slice', {}).get('by', '')}"
        groups[facts["protocol"], facts["candidates_sha256"], users].append(rung)
    ladders = [_ladder(rungs, metric) for rungs in groups.values()]
    ladders.sort(key=_order_on_page)
    return ladders, unfinished


def _order_on_page(ladder: Ladder) -> tuple[bool, int, int, int, int, str]:
    """Of the ladders of the test the one with the most models first; of equal ones the easier question."""
    facts = ladder.facts
    difficulty = Protocol.parse(facts["protocol"]).difficulty
    return ladder.of_validation, -len(ladder.models), -facts["num_users"], *difficulty, facts["candidates"]


def _rung(workspace: Workspace, dataset: str, folder: Path, manifest: Manifest) -> Rung:
    run = read_unaltered(folder)
    names = [manifest.settings.get("tag"), manifest.settings.get("sft_tag")]
    made = [Manifest.read(workspace.checkpoint(dataset, name)) for name in names if name]
    checkpoint = next((known for known in made if known is not None), None)
    if checkpoint is None:
        return Rung(run=run, manifest=manifest)
    known = checkpoint.details.get("prompt_format", {})
    share = known.get("hint_share", 0.0) or known.get("thought_share", 0.0)
    return Rung(run=run, manifest=manifest, stage=STAGES.get(checkpoint.verb, 0), hinted=bool(share))


def _ladder(rungs: Sequence[Rung], metric: str) -> Ladder:
    first, *others = rungs
    common = [name for name in first.run.facts["metrics"] if all(name in rung.run.facts["metrics"] for rung in others)]
    chosen = metric if metric in common else next((name for name in common if name.startswith("NDCG")), "MRR")
    others = sorted((rung for rung in rungs if not rung.is_model), key=lambda rung: rung.value(chosen))
    baselines, blends = [[rung for rung in others if rung.is_blend == blend] for blend in (False, True)]
    models = sorted(
        (rung for rung in rungs if rung.is_model),
        key=lambda rung: (rung.stage, rung.hinted, rung.manifest.finished_at, rung.label),
    )
    return Ladder(rungs=(*baselines, *models, *blends), metric=chosen)


def _order(metric: str) -> tuple[int, int]:
    kind, _, cut = metric.partition("@")
    return ("HR", "NDCG", "MRR").index(kind), int(cut or 0)
