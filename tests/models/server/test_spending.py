"""What it costs: money from tokens, estimates, budgets, dry runs."""

from __future__ import annotations

import numpy as np
import pytest

from mllmrec.errors import SettingsError
from mllmrec.models.base import Picture, Request
from mllmrec.models.server.asking import Spending, dry_run_table, estimate_prompt_tokens, estimate_tokens


def picture(height: int, width: int) -> Picture:
    return Picture(rgb=np.zeros((height, width, 3), np.uint8), encoded=b"", media_type="image/png")


def test_money_is_tokens_times_the_price_of_a_million() -> None:
    usage = {"calls": 7, "prompt_tokens": 3_000, "completion_tokens": 500, "estimated_tokens": 3_500}
    assert Spending(2.0, 8.0).money(usage) == pytest.approx(0.006 + 0.004)
    assert Spending().money(usage) == 0
    assert Spending(2.0, 8.0).account(usage) == {"money": 0.01, "price_in": 2.0, "price_out": 8.0}
    assert Spending().account(usage) == {}, "no price was given, so no money is told"


def test_a_budget_is_spent_when_it_is_reached() -> None:
    purse = Spending(1.0, 1.0, budget=0.01)
    assert not purse.is_spent({"prompt_tokens": 9_999})
    assert purse.is_spent({"prompt_tokens": 9_999, "completion_tokens": 1})
    assert not Spending(1.0, 1.0).is_spent({"prompt_tokens": 1e12})


def test_a_budget_without_prices_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--price-in and --price-out"):
        Spending(budget=5.0)


def test_estimates_count_characters_and_pixels() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcd" * 25) == 25
    assert estimate_tokens("ab") == 1
    assert estimate_tokens("电影") == 2
    request = Request(key="1", text="abcd" * 3, pictures=(picture(64, 64), picture(33, 32)))
    assert estimate_prompt_tokens(request) == 3 + 4 + 2


def test_a_dry_run_tells_calls_tokens_and_money_and_draws_each_request_once() -> None:
    drawn = []

    def requests() -> object:
        for number in range(2_000):
            drawn.append(number)
            yield Request(key=str(number), text="abcd" * 100)

    table = dry_run_table(requests(), 50, Spending(1.0, 4.0, budget=2.0))
    assert dict(table.rows) == {
        "calls": "2,000",
        "tokens in, about": "200,000",
        "tokens out, at most": "100,000",
        "money, at most about": "0.60",
        "budget": "2.00",
    }
    assert len(drawn) == 2_000
    assert [name for name, _ in dry_run_table([], 50, Spending()).rows] == [
        "calls",
        "tokens in, about",
        "tokens out, at most",
    ]
