"""The conditions of probes: in which respect a prompt is changed, and which probe needs which condition.

A change depends on (seed, example) or (seed, item) alone, so that it is the same whichever users are probed. The
negatives, the target and every candidate's id stay; what changes is their order, the history, or the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from mllmrec.data.draws import generator, uniform
from mllmrec.data.sequences import Catalogue
from mllmrec.records import RankingExample

History = Literal["whole", "shuffled", "last", "none"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One kind of prompt; `rotation` is the share of the candidate list that moves from its front to its end."""

    name: str
    rotation: Fraction = Fraction(0)
    history: History = "whole"
    swapped_captions: bool = False
    masked_titles: bool = False
    hinted: bool = False

    def shift(self, num_candidates: int) -> int:
        """How many candidates move from the front to the end.

        >>> Condition(name="third", rotation=Fraction(1, 3)).shift(10)
        3
        """
        return int(num_candidates * self.rotation)


MASKED = Catalogue(())
"""A catalogue that names every item by its id, so that a title holds no more than the id."""

PLAIN = Condition(name="plain")
UNHINTED, HINTED = Condition(name="unhinted"), Condition(name="hinted", hinted=True)
CHANGES = {
    "shuffled": Condition(name="shuffled", history="shuffled"),
    "last-item": Condition(name="last-item", history="last"),
    "no-history": Condition(name="no-history", history="none"),
    "caption-swap": Condition(name="caption-swap", swapped_captions=True),
    "title-mask": Condition(name="title-mask", masked_titles=True),
}
"""The probes that compare one changed prompt with the plain one."""


def rotations(count: int) -> list[Condition]:
    """`count` evenly spaced rotations but the first, which is the plain list.

    >>> [condition.name for condition in rotations(4)]
    ['rotated-1/4', 'rotated-1/2', 'rotated-3/4']
    """
    shares = [Fraction(step, count) for step in range(1, count)]
    return [Condition(name=f"rotated-{share}", rotation=share) for share in shares]


def changed(example: RankingExample, condition: Condition, seed: int) -> RankingExample:
    """`example` with its history and the order of its candidates as `condition` has them."""
    shift = condition.shift(len(example.candidates))
    return replace(
        example,
        history=_history(example, condition.history, seed),
        candidates=example.candidates[shift:] + example.candidates[:shift],
    )


def _history(example: RankingExample, kind: History, seed: int) -> tuple[str, ...]:
    if kind == "shuffled":
        return shuffled(example.history, seed, example.example_id)
    return {"whole": example.history, "last": example.history[-1:], "none": ()}[kind]


def shuffled(history: tuple[str, ...], seed: int, key: str) -> tuple[str, ...]:
    """`history` in an order drawn by hash, another one than it had wherever there is one.

    >>> sorted(shuffled(("a", "b"), 42, "e")) == ["a", "b"], shuffled(("a", "b"), 42, "e")
    (True, ('b', 'a'))
    """
    items = list(history)
    generator(seed, "probe/shuffled", key).shuffle(items)
    return tuple(items) if tuple(items) != history else history[1:] + history[:1]


def swapped(captions: Mapping[str, str], seed: int) -> dict[str, str]:
    """Each captioned item with the caption of another item, in a circle drawn by hash.

    Every caption stays in use as often as before; only where neighbours in the circle have equal captions is the next
    different one taken.

    >>> swapped({"a": "red", "b": "blue"}, 42)
    {'a': 'blue', 'b': 'red'}
    """
    circle = sorted(captions, key=lambda item: uniform(seed, "probe/caption-swap", item))
    given: dict[str, str] = {}
    ahead = ""  # The first differing caption ahead; going backwards, it is known before it is needed.
    for step in range(2 * len(circle) - 1, -1, -1):
        own = captions[circle[step % len(circle)]]
        following = captions[circle[(step + 1) % len(circle)]]
        ahead = following if following != own else ahead
        given[circle[step % len(circle)]] = ahead or own
    return {item: given[item] for item in captions}
