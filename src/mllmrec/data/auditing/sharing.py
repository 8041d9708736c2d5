"""Files of lists under audit, two at a time: one list must give nothing away about another.

Where the same user's negatives come back in a later split, the one candidate that training never showed is the answer;
where targets keep their positions from file to file, the position is the answer. The reference runs one generator of
one seed through each file, so that its files are alike until their draws fall out of step.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mllmrec.data.auditing.chance import LEVEL, at_least
from mllmrec.data.auditing.findings import SHARED_LISTS, Finding
from mllmrec.records import RankingExample, Split

FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class Digest:
    """The lists of one file by user: the first list of each that holds its target."""

    name: str
    split: Split
    legacy: bool
    lists: dict[str, tuple[str, tuple[str, ...]]]


@dataclass(kw_only=True)
class Sharing:
    """Gathers files, then compares those of random draws that are of one origin."""

    digests: list[Digest] = field(default_factory=list)

    def add(self, name: str, examples: Sequence[RankingExample], *, legacy: bool) -> None:
        lists: dict[str, tuple[str, tuple[str, ...]]] = {}
        for example in examples:
            if example.target_id in example.candidates:
                lists.setdefault(example.user_id, (example.target_id, tuple(map(sys.intern, example.candidates))))
        if lists:
            self.digests.append(Digest(name=name, split=examples[0].split, legacy=legacy, lists=lists))

    def check(self) -> Iterator[Finding]:
        for first, second in itertools.combinations(sorted(self.digests, key=_order), 2):
            users = [user for user in first.lists if user in second.lists]
            if first.legacy == second.legacy and len(users) >= FEWEST:
                if first.split == second.split == "train":
                    yield _same_lists(first, second, users)
                elif first.split == "train" and second.split != "train":
                    yield _known_negatives(first, second, users)
                    yield _same_slots(first, second, users)


def _known_negatives(first: Digest, second: Digest, users: Sequence[str]) -> Finding:
    """How often a user's later negatives all stand in the training list, of the same user and of another one."""
    own = sum(_covers(first, user, second, user) for user in users)
    shifted = zip(users, [*users[1:], users[0]], strict=True)
    others = sum(_covers(first, other, second, user) for user, other in shifted)
    probability = at_least(own, len(users), (others + 1) / (len(users) + 1))
    return _finding(
        first,
        second,
        users,
        own,
        probability,
        "users meet negatives of their training list alone",
        "Among these candidates the one that training never showed for the user is the answer: draw each split with "
        "randomness of its own, as `mllmrec candidates` does.",
    )


def _same_slots(first: Digest, second: Digest, users: Sequence[str]) -> Finding:
    """How often a user's target has the same position in both files, against what the shares of positions explain."""
    slots = [(_slot(first, user), _slot(second, user)) for user in users]
    shares = [Counter(slot[side] for slot in slots) for side in (0, 1)]
    chance = sum(count * shares[1][slot] for slot, count in shares[0].items()) / len(users) ** 2
    same = sum(one == other for one, other in slots)
    return _finding(
        first,
        second,
        users,
        same,
        at_least(same, len(users), chance),
        f"targets stand where they stood in training (chance {chance:.1%})",
        "A model can remember the place of a user's answer: shuffle each list for itself.",
    )


def _same_lists(first: Digest, second: Digest, users: Sequence[str]) -> Finding:
    """How often two training files hold the very same list for a user, order included."""
    same = sum(first.lists[user] == second.lists[user] for user in users)
    shortest = min(len(first.lists[user][1]) for user in users)
    return _finding(
        first,
        second,
        users,
        same,
        at_least(same, len(users), 1 / math.factorial(shortest)),
        "users have the same list in the same order",
        "Both training stages show the same negatives in the same order, so the second one mostly repeats what the "
        "first one memorised; `mllmrec sft` and `mllmrec grpo` draw anew for each stage and epoch.",
    )


def _finding(
    first: Digest, second: Digest, users: Sequence[str], hits: int, probability: float, what: str, meaning: str
) -> Finding:
    unlikely = probability < LEVEL
    return Finding(
        check=SHARED_LISTS,
        where=f"{first.name} and {second.name}",
        total=len(users),
        noun="users",
        result=f"{hits:,} ({hits / len(users):.1%}) {what}, p = {probability:.2g}",
        verdict=("warning" if first.legacy else "leak") if unlikely else "ok",
        meaning=meaning if unlikely else "",
        probability=probability,
    )


def _covers(first: Digest, user: str, second: Digest, later_user: str) -> bool:
    target, candidates = second.lists[later_user]
    return set(candidates) - {target} <= set(first.lists[user][1])


def _slot(digest: Digest, user: str) -> int:
    target, candidates = digest.lists[user]
    return candidates.index(target)


def _order(digest: Digest) -> tuple[int, str]:
    return (("train", "valid", "test").index(digest.split), digest.name)
