"""From scores to probes.json: the results of every probe, its cost, and one line that says how to read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.data.sequences import Line
from mllmrec.evaluation.comparison.statistics import DRAWS
from mllmrec.evaluation.metrics import FloatArray
from mllmrec.evaluation.probing.conditions import CHANGES
from mllmrec.evaluation.probing.groups import (
    count_items,
    history_lengths,
    popularity_scores,
    probe_change,
    probe_lengths,
    probe_popularity,
    probe_position,
)
from mllmrec.evaluation.probing.plan import ProbePlan
from mllmrec.evaluation.probing.sample import Sample, intervals

Facts = Mapping[str, Any]

ASKS = {
    "shuffled": "The same history in another order",
    "last-item": "The last item of the history alone",
    "no-history": "No history at all",
    "caption-swap": "Captions of other items",
    "title-mask": "Titles replaced by ids",
    "hint": "A trace as a hint, on training examples",
}
READINGS = {
    "shuffled": ("the order is used", "no use of the order was found", "the order misleads"),
    "last-item": ("older items are used", "no use of older items was found", "older items mislead"),
    "no-history": (
        "the history is used; what is left is popularity and what was memorised",
        "no use of the history was found: popularity or memory does it all",
        "the history misleads",
    ),
    "caption-swap": ("what images show is used", "no use of captions was found", "the right captions mislead"),
    "title-mask": ("titles are used", "no use of titles was found: ids do it all", "titles mislead"),
    "hint": ("hints mislead", "no effect of hints was found", "hints help, where the answer was trained on"),
}
"""How to read a fall of the metric, no significant difference, and a rise."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """All scores, and the interactions that they are related to.

    `scores` and `seconds` are by the name of the condition. Popularity is counted in `lines`; history lengths are those
    of `split_lines`, from which the probed examples come.
    """

    plan: ProbePlan
    scores: Mapping[str, Sequence[FloatArray]]
    seconds: Mapping[str, float]
    lines: Sequence[Line]
    split_lines: Sequence[Line]
    top_k: Sequence[int]
    seed: int

    def sample(self, counts: Mapping[str, int]) -> Sample:
        """The probed users, with the scores of popularity alone as one more condition."""
        alone = {"popularity": popularity_scores(self.plan.users, counts)}
        scores = {**self.scores, **alone}
        return Sample(examples=self.plan.users, scores=scores, top_k=self.top_k, seed=self.seed)

    def hinted(self) -> Sample:
        """The training examples of the hint probe."""
        scores = {name: self.scores[name] for name in ("unhinted", "hinted")} | {"plain": self.scores["unhinted"]}
        return Sample(examples=self.plan.hinted.examples, scores=scores, top_k=self.top_k, seed=self.seed)


def findings(study: Study, num_lists: int) -> dict[str, Any]:
    """The part of probes.json that follows from scores; `num_lists` is how many lists the whole file holds."""
    counts = count_items(study.lines)
    sample = study.sample(counts)
    values = sample.values("plain")
    paired = probe_change(sample, [name for name in study.plan.conditions if name in CHANGES])
    results: Mapping[str, Callable[[], dict[str, Any]]] = {
        "position": lambda: probe_position(sample, study.plan.conditions["position"]),
        "popularity": lambda: probe_popularity(sample, counts),
        "length": lambda: probe_lengths(sample, history_lengths(study.plan.users, study.split_lines)),
        "hint": lambda: _hint(study),
    }
    probes: dict[str, Any] = {}
    for name in study.plan.conditions:
        result = paired[name] if name in paired else results[name]()
        probes[name] = {**result, "says": reading(name, result, sample.names), **_cost_of(study, name)}
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
    result = probe_change(study.hinted(), ["hinted"], plain="unhinted")["hinted"]
    return {"num_examples": len(study.plan.hinted.examples), **result}


def _cost(study: Study, num_lists: int) -> dict[str, Any]:
    """The number of lists scored, also as multiples of one evaluation of the probed users and of the whole file."""
    scorings = sum(len(chunk.examples) for chunk in study.plan.chunks())
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


def headline(names: Sequence[str]) -> str:
    """The metric that readings are about: NDCG at its smallest cut-off, where there is one.

    >>> headline(["HR@1", "HR@3", "NDCG@3", "NDCG@5", "MRR"]), headline(["HR@1", "MRR"])
    ('NDCG@3', 'HR@1')
    """
    return next((name for name in names if name.startswith("NDCG@")), names[0])


def reading(probe: str, result: Facts, names: Sequence[str]) -> str:
    """The result of a probe in one line: the figure, its interval, and how to read it."""
    if probe in ASKS:
        return _change(probe, result, headline(names))
    return {"position": _position, "popularity": _popularity, "length": _groups}[probe](result, headline(names))


def bounds(interval: Facts, digits: str = ".3f") -> str:
    """`0.310 [0.290, 0.330]`, all three written as `digits` says.

    >>> bounds({"value": -0.1, "low": -0.25, "high": 0.05}, "+.2f")
    '-0.10 [-0.25, +0.05]'
    """
    value, low, high = (f"{interval[part]:{digits}}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def chance(p_value: float | None) -> str:
    """The p-value in words.

    >>> chance(0.0312), chance(1 / 1001), chance(None)
    ('by chance p = 0.031', 'by chance p = 0.001', 'no p')
    """
    return "no p" if p_value is None else f"by chance p = {p_value:.3f}"


def _change(probe: str, result: Facts, metric: str) -> str:
    facts = result["metrics"][metric]
    difference = facts["difference"]
    falls, nothing, rises = READINGS[probe]
    if difference["high"] < 0:
        reading = falls
    elif difference["low"] > 0:
        reading = rises
    else:
        least = facts["minimum_detectable"]
        reading = nothing + (f" (differences from {least:.3f} on would be)" if least else "")
    figures = f"{facts['plain']['value']:.3f} -> {facts['changed']['value']:.3f}, {bounds(difference, '+.3f')}"
    return f"{ASKS[probe]}: {metric} {figures}: {reading}."


def _position(result: Facts, _metric: str) -> str:
    stays = f"the first choice stays in {bounds(result['first_choice_kept'])} of the other rotations"
    slots = [slot for slot in result["slots"] if slot["HR@1"] is not None]
    if not slots:
        return f"Lists turned {result['rotations']} ways: {stays}; no list holds its target."
    worst, best = (pick(slots, key=lambda slot: slot["HR@1"]["value"]) for pick in (min, max))
    return (
        f"Lists turned {result['rotations']} ways: HR@1 is {worst['HR@1']['value']:.3f} with the target in slot "
        f"{worst['slot']} and {best['HR@1']['value']:.3f} in slot {best['slot']}, a range of {bounds(result['range'])} "
        f"({chance(result['range_p'])}); {stays}. A model that goes by content alone has range 0 and stays always."
    )


def _popularity(result: Facts, _metric: str) -> str:
    facts = result["log_popularity"]
    lifts = ("first_choice_lift", "target_lift", "most_popular_lift")
    choice, target, most = (math.exp(facts[name]["value"]) for name in lifts)
    return (
        f"The first choice is {choice:.1f} times as popular as its candidates are on (geometric) average, right "
        f"answers {target:.1f} times, the most popular candidate {most:.1f} times; the first choice is the most "
        f"popular one for {bounds(facts['agreement'])} of the users."
    )


def _groups(result: Facts, metric: str) -> str:
    groups = [group for group in result["groups"] if "metrics" in group]
    if len(groups) == 1:
        return f"All users have {groups[0]['group']} before the target: there is nothing to set apart."
    parts = (f"{bounds(group['metrics'][metric]['model'])} with {group['group']}" for group in groups)
    return f"{metric} by the user's whole history: {', '.join(parts)}."
