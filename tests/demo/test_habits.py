"""The law of the made-up world: hand values, averages of one, shares that do what they say, draws that follow it."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.data.draws import generator
from mllmrec.demo.habits import TASTES, Habits, Taste, factor
from mllmrec.demo.world import KINDS, TINTS, World, make_things

SHARES = st.floats(0, 0.99)
TASTE = Taste(places=("Meadow", "Ocean"), tint="gold")


def habits(title: float = 0, poster: float = 0, order: float = 0, popular: float = 0) -> Habits:
    """The law of 400 things."""
    world = World(title=title, poster=poster, order=order, popular=popular)
    return Habits(world, make_things(world))


@settings(max_examples=20, deadline=None)
@given(title=SHARES, poster=SHARES, order=SHARES, popular=SHARES)
def test_every_aspect_alone_weighs_one_on_the_average(
    title: float, poster: float, order: float, popular: float
) -> None:
    """Up to what 400 items don't divide by six tints: posters are compared over the tastes in place of the items."""
    alone = [habits(title=title), habits(popular=popular)]
    for law in alone:
        mean = sum(law.liking(TASTE, item) for item in law.items) / len(law.items)
        assert mean == pytest.approx(1)
    law = habits(poster=poster, order=order)
    by_tint = [law.liking(Taste(places=TASTE.places, tint=tint), law.items[0]) for tint in TINTS]
    assert sum(by_tint) / len(TINTS) == pytest.approx(1)
    assert sum(law.order(item, law.items[0]) for item in law.items) / len(law.items) == pytest.approx(1)


def test_the_weight_of_a_thing_by_hand() -> None:
    """0.3 + 0.7 x 4 for a liked place, 0.25 + 0.75 x 6 for the liked tint, or 0.3 and 0.25 where they don't fit."""
    law = habits(title=0.7, poster=0.75)
    for item, thing in law.things.items():
        title = 3.1 if thing.place in ("Meadow", "Ocean") else 0.3
        poster = {None: 1.0, "gold": 4.75}.get(thing.tint, 0.25)
        assert law.liking(TASTE, item) == pytest.approx(title * poster)


def test_what_came_first_is_chosen_more_often_by_hand() -> None:
    """Five fifths fall as 1, 1/2.83, 1/5.20, 1/8, 1/11.18; their mean is 0.352, and half of it all is chance."""
    law, falls = habits(popular=0.5), [1 / fifth**1.5 for fifth in range(1, 6)]
    for item, thing in law.things.items():
        assert law.liking(TASTE, item) == pytest.approx(0.5 + 0.5 * falls[thing.fifth - 1] / (sum(falls) / 5))


def test_kinds_follow_one_another_in_one_round() -> None:
    law = habits(order=0.5)
    kind, round_ = KINDS[0], []
    for _ in KINDS:
        round_.append(kind)
        kind = law.successors[kind]
    assert sorted(round_) == sorted(KINDS)
    assert kind == KINDS[0]
    last = law.items[0]
    weights = {law.things[item].kind: law.order(item, last) for item in law.items}
    assert weights == pytest.approx({**dict.fromkeys(KINDS, 0.5), law.successors["Lantern"]: 5.5})
    assert {law.order(item, None) for item in law.items} == {1.0}


def test_at_share_nought_an_aspect_tells_nothing() -> None:
    law = habits(title=0.7)
    likings = {tint: [law.liking(Taste(places=TASTE.places, tint=tint), item) for item in law.items] for tint in TINTS}
    assert all(likings[tint] == likings["gold"] for tint in TINTS)
    assert {law.order(item, law.items[3]) for item in law.items} == {1.0}


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_share_is_the_part_of_first_choices_that_follows_it(share: float) -> None:
    """share + (1 - share) x what fits by chance, which is two places of eight; 4,000 people choose."""
    law = habits(title=share)
    firsts = [law.choices(TASTE, 1, generator(0, "test", str(number)))[0] for number in range(4000)]
    wanted = share + (1 - share) * 2 / 8
    found = sum(law.things[item].place in TASTE.places for item in firsts) / len(firsts)
    assert found == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / len(firsts)))


def test_second_choices_follow_the_order_share() -> None:
    """0.6 + 0.4 / 10 of them are of the kind that comes next, and each other kind has 0.4 / 10."""
    law = habits(title=0.5, poster=0.5, order=0.6, popular=0.5)
    rounds = Counter[int]()
    for number in range(6000):
        first, second = (law.things[item].kind for item in law.choices(TASTE, 2, generator(1, "test", str(number))))
        kind, steps = law.successors[first], 1
        while kind != second:
            kind, steps = law.successors[kind], steps + 1
        rounds[steps] += 1
    assert rounds[1] / 6000 == pytest.approx(0.64, abs=4 * math.sqrt(0.64 * 0.36 / 6000))
    assert [rounds[steps] / 6000 for steps in range(2, 11)] == pytest.approx([0.04] * 9, abs=0.012)


def test_nobody_chooses_a_thing_twice_and_lengths_keep_to_their_bounds() -> None:
    world = World(num_users=200)
    for _, items in Habits(world, make_things(world)).everyone():
        assert len(set(items)) == len(items)
        assert 9 <= len(items) <= 11


def test_tastes_are_pairs_of_places_with_a_tint() -> None:
    assert len(TASTES) == len(set(TASTES)) == 28 * 6
    assert factor(0.5, True, 0.1) == 5.5
