"""Log-odds with a prior: by hand, and by counting plainly."""

from __future__ import annotations

import math

import pytest
from shelves import captions, catalogue

from mllmrec.data.sequences import Catalogue
from mllmrec.reasoning.profile.facets import Facet, Keyphrase, Statistics, log_odds, recency_weights
from mllmrec.records import Item


def test_log_odds_by_hand() -> None:
    """2 of 4 against 3 of 46, a tenth: ln(3/11) - ln(4/52) over the root of 1/3 + 1/11 + 1/4 + 1/52."""
    score = log_odds(own=2, own_total=4, others=3, others_total=46, share=0.1)
    assert score == pytest.approx(1.265666 / math.sqrt(0.693473), abs=1e-5)
    assert score == pytest.approx(1.519863, abs=1e-5)


def test_log_odds_of_the_catalogues_own_share_is_nothing() -> None:
    assert log_odds(own=1, own_total=10, others=9, others_total=90, share=0.1) == pytest.approx(0)
    assert log_odds(own=5, own_total=5, others=95, others_total=95, share=1.0) == 0


def test_more_is_stronger_and_less_is_negative() -> None:
    scores = [log_odds(own=own, own_total=9, others=20, others_total=91, share=0.2) for own in range(10)]
    assert scores == sorted(scores)
    assert scores[0] < 0 < scores[9]


def test_weights_halve_every_five_steps_and_add_up_to_the_length() -> None:
    weights = recency_weights(11)
    assert sum(weights) == pytest.approx(11)
    assert weights[0] / weights[5] == pytest.approx(0.5)
    assert weights[5] / weights[10] == pytest.approx(0.5)
    assert recency_weights(0) == []


def find(found: list[Keyphrase], facet: Facet) -> Keyphrase:
    return next(each for each in found if each.facet == facet)


def test_scores_agree_with_plain_counting() -> None:
    """Item 101 of the history has no caption, so it doesn't count where captions do."""
    told = {item: text for item, text in captions().items() if item != "101"}
    history = ["100", "101", "102", "203"]
    found = Statistics(catalogue(), told).keyphrases(history)
    weights = [0.5 ** (age / 5) for age in (3, 2, 1, 0)]
    weights = [weight * 4 / sum(weights) for weight in weights]

    boats = find(found, Facet("picture", "", "wooden boat"))
    assert boats.positions == (0, 2)
    own, total = weights[0] + weights[2], weights[0] + weights[2] + weights[3]
    a = 10 * 14 / 59
    first = math.log((own + a) / (total - own + 10 - a))
    second = math.log((12 + a) / (56 - 12 + 10 - a))
    parts = (own + a, total - own + 10 - a, 12 + a, 56 - 12 + 10 - a)
    assert boats.score == pytest.approx((first - second) / math.sqrt(sum(1 / part for part in parts)))

    sea = find(found, Facet("attribute", "genre", "Sea"))
    assert sea.score == pytest.approx(
        log_odds(own=sum(weights[:3]), own_total=4, others=12, others_total=56, share=15 / 60)
    )


def test_a_late_item_counts_for_more() -> None:
    statistics, sea = Statistics(catalogue(), {}), Facet("attribute", "genre", "Sea")
    early = find(statistics.keyphrases(["100", "102", "204", "206"]), sea)
    late = find(statistics.keyphrases(["204", "206", "100", "102"]), sea)
    assert late.score > early.score


def test_a_repeated_item_shares_nothing_with_itself() -> None:
    found = Statistics(catalogue(), captions()).keyphrases(["100", "100", "203"])
    assert not [each for each in found if each.facet.kind == "picture" and "boat" in each.facet.text]


def test_what_is_missing_is_common_and_unseen() -> None:
    missing = Statistics(catalogue(), {}).missing(["100", "102", "104"])
    assert {each.facet.text for each in missing if each.facet.name == "genre"} == {"Sand", "Wood", "Town"}
    assert all(each.score < 0 and each.positions == () for each in missing)


def test_a_catalogue_that_says_nothing_gives_no_keyphrases() -> None:
    same = Catalogue([Item(item_id=str(number), title="Thing") for number in range(5)])
    assert all(each.score == 0 for each in Statistics(same, {}).keyphrases(["1", "2", "3"]))
    assert Statistics(same, {}).keyphrases(["unknown", "items"]) == []
