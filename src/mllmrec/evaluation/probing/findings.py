"""From scores to probes.json: figures of every probe, what it cost, and what it says in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.data.sequences import Line
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing import changes, lengths, popularity, position, sentences
from mllmrec.evaluation.probing.conditions import CHANGES
from mllmrec.evaluation.probing.plan import Plan
from mllmrec.evaluation.probing.sample import Sample, intervals
from mllmrec.evaluation.statistics import DRAWS


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that was scored, and the sequences it is set against.

    `scores` and `seconds` are by the name of the condition; `lines` are what popularity is counted in, `split_lines`
    those that the users' questions come from.
    """

    plan: Plan
    scores: Mapping[str, Sequence[FloatArray]]
    seconds: Mapping[str, float]
    lines: Sequence[Line]
    split_lines: Sequence[Line]
    top_k: Sequence[int]
    seed: int

    def sample(self, counts: Mapping[str, int]) -> Sample:
        """The probed users, with popularity alone as one more condition."""
        alone = {"popularity": popularity.scores(self.plan.users, counts)}
        scores = {**self.scores, **alone}
        return Sample(examples=self.plan.users, scores=scores, top_k=self.top_k, seed=self.seed)

    def hinted(self) -> Sample:
        """The training examples of the hint probe."""
        scores = {name: self.scores[name] for name in ("unhinted", "hinted")} | {"plain": self.scores["unhinted"]}
        return Sample(examples=self.plan.hinted.examples, scores=scores, top_k=self.top_k, seed=self.seed)


def findings(study: Study, num_lists: int) -> dict[str, Any]:
    """The part of probes.json that follows from scores; `num_lists` is how many lists the whole file holds."""
    counts = popularity.count_items(study.lines)
    sample = study.sample(counts)
    values = sample.values("plain")
    paired = changes.probe(sample, [name for name in study.plan.conditions if name in CHANGES])
    figures: Mapping[str, Callable[[], dict[str, Any]]] = {
        "position": lambda: position.probe(sample, study.plan.conditions["position"]),
        "popularity": lambda: popularity.probe(sample, counts),
        "length": lambda: lengths.probe(sample, lengths.history_lengths(study.plan.users, study.split_lines)),
        "hint": lambda: _hint(study),
    }
    probes: dict[str, Any] = {}
    for name in study.plan.conditions:
        found = paired[name] if name in paired else figures[name]()
        probes[name] = {**found, "says": sentences.says(name, found, sample.names), **_cost_of(study, name)}
    for name, reason in study.plan.not_applicable.items():
        probes[name] = {"not_applicable": reason, "says": f"n/a: {reason}."}
    return {
        "metrics": intervals({name: values[:, index] for index, name in enumerate(sample.names)}, study.seed),
        "chance": sample.chance(),
        "interval": {"level": 0.95, "draws": DRAWS, "seed": study.seed},
        "cost": _cost(study, num_lists),
        "probes": probes,
    }


def _hint(study: Study) -> dict[str, Any]:
    found = changes.probe(study.hinted(), ["hinted"], plain="unhinted")["hinted"]
    return {"num_examples": len(study.plan.hinted.examples), **found}


def _cost(study: Study, num_lists: int) -> dict[str, Any]:
    """Scorings of one user's list in all, as multiples of one evaluation of the probed users and of the whole file."""
    scorings = sum(len(part.examples) for part in study.plan.parts())
    return {
        "scorings": scorings,
        "evaluations": round(scorings / len(study.plan.users), 3),
        "evaluations_of_the_whole_file": round(scorings / num_lists, 3),
        "seconds": round(sum(study.seconds.values()), 3),
        "seconds_of_one_evaluation": round(study.seconds["plain"], 3),
    }


def _cost_of(study: Study, probe: str) -> dict[str, Any]:
    """What one probe adds to the plain prompts, in evaluations of the probed users and in seconds."""
    own = study.plan.conditions[probe]
    asked = study.plan.hinted.examples if probe == "hint" else study.plan.users
    return {
        "evaluations": round(len(own) * len(asked) / len(study.plan.users), 3),
        "seconds": round(sum(study.seconds[condition.name] for condition in own), 3),
    }
