"""What the page says of itself: a title that tells what was tested, and how to read the figures."""

from __future__ import annotations

from collections.abc import Iterator

from mllmrec.data.candidates.protocols import Protocol
from mllmrec.evaluation.comparison.tables import ceilings
from mllmrec.evaluation.reporting.ladder import MeasuredLadder
from mllmrec.records import counted


def title_of(dataset: str, measured: MeasuredLadder | None) -> str:
    """What was ranked by whom, in one line."""
    if measured is None:
        return f"{dataset}: the data so far, nothing ranked yet"
    ladder = measured.ladder
    baselines = len(ladder.rungs) - len(ladder.models) - len(ladder.blends)
    kinds = {"language model": len(ladder.models), "baseline": baselines, "blend": len(ladder.blends)}
    who = [counted(count, kind) for kind, count in kinds.items() if count]
    listed = f"{', '.join(who[:-1])} and {who[-1]}" if len(who) > 1 else who[0]
    return f"{dataset}: {listed} rank what comes next"


def how_to_read(measured: MeasuredLadder | None) -> Iterator[tuple[str, str]]:
    """(term, what it means here) for the words that the page uses."""
    if measured is None:
        return
    ladder, facts = measured.ladder, measured.ladder.facts
    metric, protocol = ladder.metric, facts["protocol"]
    yield (
        "Question",
        f"For each of {facts['num_users']:,} users a ranker sees the history and orders a list of up to "
        f"{facts['num_candidates']} candidates. The protocol says what is in the list; `{protocol}`: "
        f"{Protocol.parse(protocol).words}. A figure compares only with figures of the same protocol.",
    )
    yield (
        "Metrics",
        "HR@K is the share of users whose next item is among the first K; NDCG@K and MRR count more the higher it "
        "stands. `HR@1/uni9` is HR@1 under the protocol uni9. Brackets and small figures are 95 % intervals.",
    )
    yield "RUN", "The results of one ranker on one candidate file: a row of a table, a dot of a drawing."
    yield (
        "Ladder",
        "All RUNs on the same lists, each after the one that it has to beat: baselines from the weakest up, then "
        "models in the order in which they were made from one another. A stage is worth it where its step up is found.",
    )
    chance = f"Guessing gives {metric} = {facts['chance'][metric]:.3f} here."
    best = ceilings(ladder.rungs[0].run).get("ceiling", {})
    ceiling = (
        f" The best possible ranker would reach {best[metric].value:.3f}, known because the world is made up."
        if metric in best
        else ""
    )
    yield "Chance and ceiling" if ceiling else "Chance", chance + ceiling
    sizes = sorted(step.differences[metric].detectable for step in (*measured.steps, *measured.over_baseline))
    if sizes:
        span = f"{sizes[0]:.3f}" if len(sizes) == 1 else f"{sizes[0]:.3f} to {sizes[-1]:.3f}"
        yield (
            "Detectable",
            f"With so many users a true difference in {metric} of {span}, depending on the pair, is found four times "
            "in five. A smaller one may be there and not be found: no difference found is not the same as none.",
        )
