"""The blend that a model is part of, applied to new lists: the weights of a `mllmrec blend` RUN, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.evaluation.baselines.base import Baseline
from mllmrec.evaluation.baselines.families import FAMILIES, Fitting
from mllmrec.evaluation.baselines.fitting import lines_for, read_fitted
from mllmrec.evaluation.blending.fitting import Features, blended, features_of
from mllmrec.evaluation.ranking.models import ModelChoice
from mllmrec.progress import note
from mllmrec.records import RankingExample
from mllmrec.storage.manifests import Manifest
from mllmrec.storage.workspace import read_json

FULL = "-full"


@dataclass(frozen=True, kw_only=True)
class ServedBlend:
    """A model's blend with baselines: `parts` in the order of `weights`, None where the part is the model itself."""

    name: str
    weights: tuple[float, ...]
    features: Features
    parts: Mapping[str, Baseline | None]

    @classmethod
    def newest(cls, choice: ModelChoice, fitting: Fitting) -> ServedBlend | None:
        """The blend that was made last of those with the model and baselines alone; None where there is none."""
        model = choice.name
        found = sorted(_blends_with(model, fitting), key=lambda blend: blend[0].finished_at, reverse=True)
        for _, facts in found:
            names = list(facts["blend"]["whole"]["weights"])
            baselines = {name: None if name == model else _baseline(name, fitting) for name in names}
            if lacking := [name for name, baseline in baselines.items() if baseline is None and name != model]:
                note(f"The blend {facts['name']} is left aside: {', '.join(lacking)} would have to be fitted first.")
                continue
            if not _is_of(choice, fitting.workspace.root / facts["blend"]["parts"][model]["test"]):
                note(f"The blend {facts['name']} is left aside: {model} was made anew since. Make it again.")
                continue
            whole = facts["blend"]["whole"]
            return cls(
                name=facts["name"],
                weights=tuple(whole["weights"].values()),
                features=whole["features"],
                parts=baselines,
            )
        return None

    def log_shares(self, whole: RankingExample, short: RankingExample, scores_C: Sequence[float]) -> list[float]:
        """The log of each candidate's share by the blend, from the model's scores of the same candidates.

        Parts that read full histories are shown that of `whole`, the others that of `short`, the model's window.
        """
        parts = []
        for name, baseline in self.parts.items():
            own = whole if name.endswith(FULL) else short
            parts.append(scores_C if baseline is None else next(iter(baseline.score_lists([own]))))
        utilities = blended(self.weights, features_of(parts, self.features))
        own_C: list[float] = (utilities - np.logaddexp.reduce(utilities)).tolist()
        return own_C


def _blends_with(model: str, fitting: Fitting) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    """Finished blends on test lists of which the model is a part."""
    for path in fitting.workspace.dataset(fitting.dataset).results.glob("*/*/metrics.json"):
        facts, manifest = _facts(path), Manifest.read(path.parent)
        if manifest is not None and model in facts.get("blend", {}).get("parts", {}):
            yield manifest, facts


def _is_of(choice: ModelChoice, run: Path) -> bool:
    """Whether a RUN is of the model as it is now."""
    manifest, now = Manifest.read(run), choice.hashes()
    return manifest is not None and {role: manifest.inputs.get(role) for role in now} == now


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(path)
    return facts


def _baseline(name: str, fitting: Fitting) -> Baseline | None:
    family = FAMILIES.get(name.removesuffix(FULL))
    if family is None:
        return None
    if family.tuned:
        fitted = read_fitted(name.removesuffix(FULL), fitting, "test")
        return fitted.baseline if fitted else None
    return family.make(family.grid[0], fitting).fit(lines_for(fitting, "test"))
