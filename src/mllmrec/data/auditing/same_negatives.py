"""Negatives under audit: lists that all hold the same ones ask one question again and again.

Whoever has seen a few of them knows the negatives by heart, and the target is what is new. Lists drawn at random share
some items, the more the smaller the catalogue is; this looks only where they could well differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mllmrec.data.auditing.findings import SAME_NEGATIVES, Finding, judged
from mllmrec.records import RankingExample

FEWEST_LISTS, ROOM, MOST = 20, 5, 0.5
"""Lists to judge by; items for each negative that must be there to draw from; share of lists that may be alike."""
FOR_ONE_CHANGE = 5
"""Negatives from which on one in ten may be another, since nobody's negatives hold what that user has met."""


def check(where: str, examples: Sequence[RankingExample], num_items: int) -> Finding:
    """Whether most lists take their negatives from the same few items."""
    lists = [frozenset(example.candidates) - {example.target_id} for example in examples]
    length = max(map(len, lists), default=0)
    if len(lists) < FEWEST_LISTS or num_items < ROOM * length:
        few = f"fewer than {FEWEST_LISTS} lists, or than {ROOM} items for each negative"
        return Finding(check=SAME_NEGATIVES, where=where, found=few, verdict="not checked")
    changes = max(1, length // 10) if length >= FOR_ONE_CHANGE else 0
    counts = Counter(item for items in lists for item in items)
    commonest = {item for item, _ in counts.most_common(length + changes)}
    alike = [at for at, items in enumerate(lists, 1) if items and len(items & commonest) >= len(items) - changes]
    return judged(
        SAME_NEGATIVES,
        where,
        len(lists),
        "lists",
        [f"list {at}" for at in alike] if len(alike) > MOST * len(lists) else [],
        "leak",
        meaning="The negatives are the same from list to list, so that the target is the one candidate that isn't "
        "known from the others: draw the lists again with `mllmrec candidates`.",
    )
