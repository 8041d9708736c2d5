"""The best possible ranker: against its definition written out, against enumeration, and against simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from mllmrec.data.candidates.drawing import with_candidates
from mllmrec.data.candidates.negatives import PoolSampler
from mllmrec.data.draws import generator
from mllmrec.demo.habits import TASTES, Habits, Taste
from mllmrec.demo.oracle import ROWS, FloatArray, Oracle, expected
from mllmrec.demo.world import World, make_things
from mllmrec.records import RankingExample

TINY = World(num_items=18, num_users=1500, length=(5, 5), seed=5)
WINDOW = 4


def law_of(world: World) -> Habits:
    return Habits(world, make_things(world))


def step(law: Habits, taste: Taste, before: tuple[str, ...], item: str) -> float:
    """P(item | before, taste), as the law defines it."""
    last = before[-1] if before else None
    free = {each: law.liking(taste, each) * law.order(each, last) for each in law.items if each not in before}
    return free[item] / sum(free.values())


def path(law: Habits, taste: Taste, items: tuple[str, ...]) -> float:
    """P(items in this order | taste)."""
    return math.prod(step(law, taste, items[:number], item) for number, item in enumerate(items))


def test_with_all_that_was_chosen_the_chances_are_those_of_the_definition() -> None:
    law = law_of(TINY)
    oracle, history = Oracle(law), tuple(law.items[number] for number in (3, 11, 0, 7))
    candidates = [law.items[number] for number in (1, 5, 8, 12, 17)]
    wanted = np.array([sum(path(law, taste, (*history, item)) for taste in TASTES) for item in candidates])
    assert oracle.chances(history, candidates, before=0) == pytest.approx(wanted / wanted.sum())


class Enumeration:
    """P(items in this order | taste) for every taste, from the weights of all things at every step."""

    def __init__(self, law: Habits) -> None:
        self.items = law.items
        self.liking = np.array([[law.liking(taste, item) for item in law.items] for taste in TASTES])
        self.order = {last: np.array([law.order(item, last) for item in law.items]) for last in (None, *law.items)}

    def chances(self, items: Sequence[str]) -> FloatArray:
        chance, free = np.ones(len(TASTES)), np.ones(len(self.items))
        for last, item in zip((None, *items), items, strict=False):
            weights = self.liking * (self.order[last] * free)
            place = self.items.index(item)
            chance *= weights[:, place] / weights.sum(axis=1)
            free[place] = 0
        return chance


def test_without_the_first_choice_the_chances_are_nearly_those_of_enumeration() -> None:
    """Everything that may have come first is tried. In a world a fifth as large as the demo's it matters more."""
    law = law_of(World(num_items=80))
    oracle, enumeration, gaps = Oracle(law), Enumeration(law), []
    for user in range(24):
        *history, target = law.choices(TASTES[user * 7], 7, generator(2, "test", str(user)))[-4:]
        candidates = [target, *(item for item in law.items if item not in (*history, target))][:5]
        hidden = [item for item in law.items if item not in (*history, *candidates)]
        wanted = np.array([sum(enumeration.chances((u, *history, c)).sum() for u in hidden) for c in candidates])
        gaps.append(abs(oracle.chances(history, candidates, before=1) - wanted / wanted.sum()).max())
    assert sum(gaps) / len(gaps) < 0.08, gaps


def simulated(world: World) -> tuple[list[RankingExample], dict[str, tuple[str, ...]]]:
    """Test questions of everybody, with three negatives, and what each person chose before."""
    examples, past = [], {}
    for user, items in law_of(world).everyone():
        example = RankingExample(
            example_id=user,
            user_id=user,
            history=tuple(items[-WINDOW:-1]),
            candidates=(),
            target_id=items[-1],
            split="test",
        )
        sampler = PoolSampler(make_things(world))
        examples.append(with_candidates(example, sampler, frozenset(items), 3, 1, "test"))
        past[user] = tuple(items[:-1])
    return examples, past


def test_the_ceiling_is_what_the_best_ranker_hits_in_simulation() -> None:
    """1,500 people: the expected HR@1 and the targets that really came first agree within four standard errors; and
    no ranking beats the one that sees everything."""
    examples, past = simulated(TINY)
    law = law_of(TINY)
    oracle, values = Oracle(law), expected(TINY, examples, past)
    hits = [
        example.candidates[int(oracle.chances(example.history, example.candidates, before=1).argmax())]
        == example.target_id
        for example in examples
    ]
    ceiling = values["ceiling"][:, 0].mean()
    assert np.mean(hits) == pytest.approx(ceiling, abs=4 * math.sqrt(ceiling * (1 - ceiling) / len(hits)))
    seeing_all = np.mean([oracle.chances(past[e.user_id], e.candidates, before=0).max() for e in examples])
    assert 0.25 < values[ROWS[1]][:, 0].mean() < ceiling <= seeing_all


@pytest.mark.parametrize("share", [0.0, 0.75])
def test_without_a_poster_share_posters_give_nothing_away(share: float) -> None:
    world = World(num_items=60, num_users=150, length=(5, 6), poster=share)
    values = expected(world, *simulated(world))
    assert np.array_equal(values["ceiling"], values["ceiling, titles only"]) == (share == 0)


def test_where_nothing_decides_the_ceiling_is_chance() -> None:
    world = World(num_items=60, num_users=20, length=(5, 6), title=0, poster=0, order=0, popular=0)
    values = expected(world, *simulated(world))
    assert values["ceiling"][:, 0] == pytest.approx(np.full(20, 0.25))


def test_orders_of_candidates_leave_chances_alone() -> None:
    law = law_of(World(num_items=60))
    oracle, history = Oracle(law), law.items[:5]
    for order in itertools.islice(itertools.permutations(law.items[20:25]), 5):
        chances = dict(zip(order, oracle.chances(history, order, before=1), strict=True))
        assert chances == pytest.approx(
            dict(zip(law.items[20:25], oracle.chances(history, law.items[20:25], before=1), strict=True))
        )
