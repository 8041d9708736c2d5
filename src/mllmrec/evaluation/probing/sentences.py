"""What each probe says, in one line: the figure, its interval, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
"""How to read a fall, no difference that was found, and a rise."""


def headline(names: Sequence[str]) -> str:
    """The metric that sentences speak of: NDCG at its smallest cut-off, where there is one.

    >>> headline(["HR@1", "HR@3", "NDCG@3", "NDCG@5", "MRR"]), headline(["HR@1", "MRR"])
    ('NDCG@3', 'HR@1')
    """
    return next((name for name in names if name.startswith("NDCG@")), names[0])


def says(probe: str, found: Facts, names: Sequence[str]) -> str:
    """The line of a probe."""
    if probe in ASKS:
        return _change(probe, found, headline(names))
    return {"position": _position, "popularity": _popularity, "length": _groups}[probe](found, headline(names))


def bounds(interval: Facts, digits: str = ".3f") -> str:
    """`0.310 [0.290, 0.330]`, all three written as `digits` says.

    >>> bounds({"value": -0.1, "low": -0.25, "high": 0.05}, "+.2f")
    '-0.10 [-0.25, +0.05]'
    """
    value, low, high = (f"{interval[part]:{digits}}" for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def chance(p_value: float | None) -> str:
    """How often chance alone makes as much.

    >>> chance(0.0312), chance(1 / 1001), chance(None)
    ('by chance p = 0.031', 'by chance p = 0.001', 'no p')
    """
    return "no p" if p_value is None else f"by chance p = {p_value:.3f}"


def _change(probe: str, found: Facts, metric: str) -> str:
    facts = found["metrics"][metric]
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


def _position(found: Facts, _metric: str) -> str:
    stays = f"the first choice stays in {bounds(found['first_choice_kept'])} of the other rotations"
    slots = [slot for slot in found["slots"] if slot["HR@1"] is not None]
    if not slots:
        return f"Lists turned {found['rotations']} ways: {stays}; no list holds its target."
    worst, best = (pick(slots, key=lambda slot: slot["HR@1"]["value"]) for pick in (min, max))
    return (
        f"Lists turned {found['rotations']} ways: HR@1 is {worst['HR@1']['value']:.3f} with the target in slot "
        f"{worst['slot']} and {best['HR@1']['value']:.3f} in slot {best['slot']}, a range of {bounds(found['range'])} "
        f"({chance(found['range_p'])}); {stays}. A model that goes by content alone has range 0 and stays always."
    )


def _popularity(found: Facts, _metric: str) -> str:
    facts = found["log_popularity"]
    lifts = ("first_choice_lift", "target_lift", "most_popular_lift")
    choice, target, most = (math.exp(facts[name]["value"]) for name in lifts)
    return (
        f"The first choice is {choice:.1f} times as popular as its candidates are on (geometric) average, right "
        f"answers {target:.1f} times, the most popular candidate {most:.1f} times; the first choice is the most "
        f"popular one for {bounds(facts['agreement'])} of the users."
    )


def _groups(found: Facts, metric: str) -> str:
    told = [group for group in found["groups"] if "metrics" in group]
    if len(told) == 1:
        return f"All users have {told[0]['group']} before the target: there is nothing to set apart."
    parts = (f"{bounds(group['metrics'][metric]['model'])} with {group['group']}" for group in told)
    return f"{metric} by the user's whole history: {', '.join(parts)}."
