"""The audit's statistics: right by hand where that is possible, calm under chance, awake to a table of places."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from mllmrec.data.auditing.chance import LEVEL, TargetSlot, at_least, evenness, events, lookup_attack


def places(*positions: int, length: int = 4, targets: int = 0) -> list[TargetSlot]:
    """Places in lists of one length; targets repeat after `targets`, or are all different."""
    return [
        TargetSlot(
            example_id=f"e{number}",
            target_id=f"t{number % targets if targets else number}",
            position=position,
            length=length,
        )
        for number, position in enumerate(positions)
    ]


def test_evenness_is_the_chi_square_probability() -> None:
    counts = (30, 20, 25, 25)
    found = evenness(places(*(position for position, count in enumerate(counts) for _ in range(count))))
    assert found == pytest.approx(stats.chisquare(counts).pvalue)


def test_lists_of_two_lengths_are_judged_apart_and_added_up() -> None:
    short, long = places(*[0] * 30, *[1] * 20, length=2), places(*[0] * 10, *[1] * 20, *[2] * 30, length=3)
    by_hand = (5**2 + 5**2) / 25 + (10**2 + 0 + 10**2) / 20
    assert evenness([*short, *long]) == pytest.approx(stats.chi2.sf(by_hand, 1 + 2))


def test_neighbours_are_counted_together_until_ten_are_expected() -> None:
    """Forty lists of a hundred: four cells of twenty-five positions."""
    positions = [*range(10), *range(25, 35), *range(50, 60), *range(75, 85)]
    assert evenness(places(*positions, length=100)) == pytest.approx(1.0)
    assert evenness(places(*range(40), length=100)) == pytest.approx(stats.chisquare((25, 15, 0, 0)).pvalue)


def test_cells_of_different_sizes_expect_in_proportion() -> None:
    """Twenty lists of three: two cells, one of two positions and one of one."""
    assert evenness(places(*[0] * 7, *[1] * 6, *[2] * 7, length=3)) == pytest.approx(
        stats.chisquare((13, 7), (40 / 3, 20 / 3)).pvalue
    )


def test_too_few_lists_are_not_judged() -> None:
    assert evenness(places(*[0] * 19, length=10)) is None
    assert evenness([]) is None
    assert evenness(places(*[0] * 20, length=10)) is not None


def test_chance_stays_above_the_level() -> None:
    """Two hundred fair files of five hundred lists: none is an alarm, and probabilities are spread evenly."""
    rng = random.Random(1)
    found = []
    for _ in range(200):
        probability = evenness(places(*(rng.randrange(10) for _ in range(500)), length=10))
        assert probability is not None
        found.append(probability)
    assert min(found) > LEVEL
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_a_table_from_target_to_place_opens_a_file_whose_order_hangs_on_the_item() -> None:
    positions = [(number % 12) * 7 % 4 for number in range(400)]
    attack = lookup_attack(places(*positions, targets=12))
    assert attack is not None
    assert attack.hits == attack.tried > 150
    assert attack.chance == pytest.approx(0.25, abs=0.05)
    assert attack.probability < LEVEL


def test_the_table_fails_on_fair_lists() -> None:
    rng = random.Random(2)
    attack = lookup_attack(places(*(rng.randrange(10) for _ in range(3000)), length=10, targets=150))
    assert attack is not None
    assert attack.tried > 1000
    assert attack.probability > 0.01
    assert abs(attack.hits / attack.tried - 0.1) < 0.03


def test_an_uneven_file_is_no_success_of_the_table() -> None:
    """Every target stands first: whoever knows that needs no table."""
    attack = lookup_attack(places(*[0] * 200, targets=10))
    assert attack is not None
    assert (attack.hits, attack.chance, attack.probability) == (attack.tried, 1.0, 1.0)


def test_without_a_target_that_comes_again_there_is_no_attack() -> None:
    assert lookup_attack(places(*[0, 1, 2, 3] * 20)) is None
    assert lookup_attack([]) is None


def test_tails_by_hand() -> None:
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(0, 3, 0.5) == 1.0
    assert at_least(3, 3, 1.0) == 1.0
    assert events(2, 1.0) == pytest.approx(1 - 2 * math.exp(-1))
    assert events(0, 0.0) == 1.0
    assert events(1, 0.0) == 0.0
