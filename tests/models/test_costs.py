"""Which layout is cheapest: the counts by hand, and that trees are for tens of candidates and caches for thousands."""

from __future__ import annotations

from small_models import random_model

from mllmrec.models.base import ScoringTask
from mllmrec.models.costs import COPY, Costs
from mllmrec.models.tries import make_rows

END = 1
[ROW] = make_rows([ScoringTask(prompt_T=[2, 3, 4, 5], answers_C=[[7, 8, 9, END], [7, 8, 10, END], [7, 11, END]])])
"""Five nodes: 7 before all answers, then 8 with 9 and 10 behind it, and 11."""


def test_the_counts_by_hand() -> None:
    """The tree reads 4 + 5 tokens; the cache 4 + 1, and three paths of 2, 2 and 1 behind three copies of them."""
    assert Costs(token=1, pair=0, kept=0).tree(ROW) == 9
    assert Costs(token=1, pair=0, kept=0).cache(ROW) == 10
    assert Costs(token=0, pair=1, kept=0).tree(ROW) == 4 * 4 / 2 + 5 * (4 + 5)
    assert Costs(token=0, pair=1, kept=0).cache(ROW) == 5 * 5 / 2 + 2 * (2 * (5 + 2)) + 1 * (5 + 1)
    assert Costs(token=0, pair=0, kept=2).cache(ROW) == COPY * 2 * 5 * 3


def test_the_counts_of_a_model() -> None:
    """Two layers: q and o of 32 x 32, k and v of 32 x 16, an MLP of 3 x 32 x 48; 4 heads of 8, 2 of them kept."""
    costs = Costs.of(random_model())
    assert 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) <= costs.token <= 1.05 * 2 * (3 * 32 * 32 + 3 * 32 * 48)
    assert (costs.pair, costs.kept) == (2 * 4 * 8 * 2, 2 * 2 * 8 * 2)


def test_trees_for_tens_of_candidates_and_caches_for_thousands() -> None:
    costs = Costs(token=1e7, pair=37_000, kept=512)
    for count, first in ((10, "tree"), (100, "tree"), (5_000, "cache")):
        answers = [[7, 8, *(20 + int(digit) for digit in f"{item:05d}"), item % 97 + 40, END] for item in range(count)]
        [row] = make_rows([ScoringTask(prompt_T=[3] * 470, answers_C=answers)])
        assert costs.cheapest_first(row, ["tree", "cache"])[0] == first
