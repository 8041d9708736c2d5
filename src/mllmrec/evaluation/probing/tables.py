"""probes.json as tables: slots, changed prompts, popularity and groups of users, and one line for each probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mllmrec.evaluation.probing.findings import bounds, chance, headline
from mllmrec.records import Table

Facts = Mapping[str, Any]
LIFTS = {
    "first_choice_lift": "model's first choice",
    "target_lift": "right answer",
    "most_popular_lift": "most popular candidate",
    "first_choice_minus_target": "first choice - right answer",
}


def tables(facts: Facts) -> tuple[Table, ...]:
    """The tables of all probes that were made, the overview last."""
    probes = {name: result for name, result in facts["probes"].items() if "not_applicable" not in result}
    shown: list[Table] = []
    if "position" in probes:
        shown.append(_slots(facts, probes["position"]))
    if "popularity" in probes:
        shown += [
            _lifts(facts, probes["popularity"]),
            _groups(facts, probes["popularity"], "By the target's popularity"),
        ]
    if "length" in probes:
        shown.append(_groups(facts, probes["length"], "By the length of the user's history"))
    changed = {name: own for name, own in probes.items() if "first_choice_kept" in own and "metrics" in own}
    shown += _changes(facts, {name: own for name, own in changed.items() if name != "hint"}, "Changed prompts")
    shown += _changes(facts, {name: own for name, own in changed.items() if name == "hint"}, "Training examples")
    return (*shown, _overview(facts))


def _overview(facts: Facts) -> Table:
    cost = facts["cost"]
    rows = [("plain prompts", "1", f"{cost['seconds_of_one_evaluation']:.1f}", _plain(facts))]
    for name, result in facts["probes"].items():
        spent = (f"{result['evaluations']:g}", f"{result['seconds']:.1f}") if "evaluations" in result else ("0", "0.0")
        rows.append((name, *spent, result["says"]))
    return Table(
        title=_title(facts, f"Probes of {facts['name']}"),
        columns=("probe", "evaluations", "seconds", "what it says"),
        rows=tuple(rows),
        note=(
            f"Cost: {cost['scorings']} lists scored, as many as {cost['evaluations']:g} evaluations of these users or "
            f"{cost['evaluations_of_the_whole_file']:g} of the whole candidate file. Intervals are 95 %, over users; "
            "differences are paired."
        ),
        justify="left",
    )


def _plain(facts: Facts) -> str:
    name = headline(list(facts["metrics"]))
    return (
        f"{name}/{facts['protocol']} {bounds(facts['metrics'][name])}; guessing would give {facts['chance'][name]:.3f}."
    )


def _slots(facts: Facts, result: Facts) -> Table:
    rows = [
        (slot["slot"], _or_none(slot["HR@1"]), bounds(slot["first_choices"]), f"{slot['uniform']:.3f}")
        for slot in result["slots"]
    ]
    return Table(
        title=_title(facts, f"Slots of the candidate list, {result['rotations']} rotations"),
        columns=("slot", f"HR@1/{facts['protocol']} with the target there", "share of first choices", "uniform"),
        rows=tuple(rows),
        note=(
            f"Range across slots: HR@1 {_or_none(result['range'])} ({chance(result['range_p'])}), first choices "
            f"{bounds(result['choices_range'])} ({chance(result['choices_range_p'])}); HR@1 across whole rotations "
            f"{_or_none(result['rotations_range'])}. Resampled ranges lean upwards; p tells whether slots matter."
        ),
    )


def _lifts(facts: Facts, result: Facts) -> Table:
    shown = result["log_popularity"]
    rows = [("candidates", bounds(shown["candidates"], ".2f"), "")]
    rows += [(label, "", bounds(shown[name], "+.2f")) for name, label in LIFTS.items()]
    return Table(
        title=_title(facts, "Popularity, log(1 + times in training)"),
        columns=("", "mean", "above the candidates' mean"),
        rows=tuple(rows),
        note="The last row is the model's lean beyond what right answers have.",
    )


def _groups(facts: Facts, result: Facts, what: str) -> Table:
    name = headline(list(facts["metrics"]))
    rows = [(group["group"], str(group["num_users"]), *_cells(group, name)) for group in result["groups"]]
    return Table(
        title=_title(facts, what),
        columns=("", "users", f"{name}/{facts['protocol']}", "popularity alone", "difference"),
        rows=tuple(rows),
    )


def _cells(group: Facts, name: str) -> tuple[str, str, str]:
    if "metrics" not in group:
        return ("n/a", "n/a", "n/a")
    metric = group["metrics"][name]
    return (bounds(metric["model"]), bounds(metric["popularity"]), bounds(metric["difference"], "+.3f"))


def _changes(facts: Facts, probes: Mapping[str, Facts], what: str) -> Iterator[Table]:
    if not probes:
        return
    first = next(iter(probes.values()))
    names = _shown(list(first["metrics"]))
    rows = [("as it is", *(bounds(first["metrics"][name]["plain"]) for name in names), "")]
    for probe, result in probes.items():
        metrics = [result["metrics"][name] for name in names]
        cells = (f"{metric['changed']['value']:.3f}\n{bounds(metric['difference'], '+.3f')}" for metric in metrics)
        rows.append((probe, *cells, bounds(result["first_choice_kept"])))
    yield Table(
        title=_title(facts, what, first.get("num_examples")),
        columns=("prompt", *(f"{name}/{facts['protocol']}" for name in names), "first choice kept"),
        rows=tuple(rows),
        note="Beneath each figure its paired difference from the prompt as it is.",
    )


def _shown(names: Sequence[str]) -> list[str]:
    """HR@1 and the headline: more would not fit a terminal; probes.json holds them all."""
    return list(dict.fromkeys(("HR@1", headline(names))))


def _or_none(interval: Facts | None) -> str:
    return "n/a" if interval is None else bounds(interval)


def _title(facts: Facts, what: str, users: int | None = None) -> str:
    number = facts["num_users"] if users is None else users
    return f"{what}: {facts['dataset']}, {number} {'users' if users is None else 'examples'}, {facts['candidates']}"
