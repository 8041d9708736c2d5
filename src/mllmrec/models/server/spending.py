"""What asking a server costs: prices, budgets, and estimates before anything is spent.

A server tells how many tokens it counted; where it doesn't, and before the first call, they are estimated from the
length of the text and the size of the pictures. An estimate is always told as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mllmrec.errors import SettingsError
from mllmrec.models.base import Request
from mllmrec.records import Table

ASCII_PER_TOKEN = 4.0
OTHERS_PER_TOKEN = 1.5
PIXELS_PER_TOKEN = 1024
MILLION = 1_000_000


@dataclass(frozen=True)
class Spending:
    """Prices of a million tokens read and written, and what may be spent in all, in the same money.

    >>> Spending(0.5, 2.0).money({"prompt_tokens": 1_000_000, "completion_tokens": 250_000})
    1.0
    >>> Spending(0.5, 2.0, budget=0.9).is_spent({"prompt_tokens": 1_000_000, "completion_tokens": 250_000})
    True

    Raises SettingsError for a budget without prices, which could never be reached.
    """

    price_in: float = 0.0
    price_out: float = 0.0
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and not (self.price_in or self.price_out):
            raise SettingsError(
                f"A budget of {self.budget:g} was given and no price. Expected the prices of a million tokens; give "
                "--price-in and --price-out, or leave --budget out."
            )

    def money(self, usage: Mapping[str, float]) -> float:
        """What the tokens of `usage` cost."""
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return (read * self.price_in + written * self.price_out) / MILLION

    def is_spent(self, usage: Mapping[str, float]) -> bool:
        """Whether `usage` has reached the budget."""
        return self.budget is not None and self.money(usage) >= self.budget

    def account(self, usage: Mapping[str, float]) -> dict[str, float]:
        """Money and prices as a manifest keeps them; empty when no price was given."""
        if not (self.price_in or self.price_out):
            return {}
        return {"money": round(self.money(usage), 6), "price_in": self.price_in, "price_out": self.price_out}


def estimate_tokens(text: str) -> int:
    """About how many tokens a text takes: four characters each, and one and a half outside ASCII.

    >>> estimate_tokens("The Long Way Home")
    5
    >>> estimate_tokens("很长的回家路")
    4
    """
    others = sum(not character.isascii() for character in text)
    return math.ceil((len(text) - others) / ASCII_PER_TOKEN + others / OTHERS_PER_TOKEN)


def estimate_prompt_tokens(request: Request) -> int:
    """About how many tokens a request takes: its text, and a token for each 32 x 32 pixels of its pictures."""
    pixels = (picture.rgb.shape[0] * picture.rgb.shape[1] for picture in request.pictures)
    return estimate_tokens(request.text) + sum(math.ceil(count / PIXELS_PER_TOKEN) for count in pixels)


def dry_run_table(requests: Iterable[Request], max_new_tokens: int, spending: Spending) -> Table:
    """What asking all `requests` would take; opens no connection. What is written is told as its upper bound."""
    calls = read = 0
    for request in requests:
        calls += 1
        read += estimate_prompt_tokens(request)
    written = calls * max_new_tokens
    rows = [
        ("calls", f"{calls:,}"),
        ("tokens in, about", f"{read:,}"),
        ("tokens out, at most", f"{written:,}"),
    ]
    if account := spending.account({"prompt_tokens": read, "completion_tokens": written}):
        rows.append(("money, at most about", f"{account['money']:,.2f}"))
    if spending.budget is not None:
        rows.append(("budget", f"{spending.budget:,.2f}"))
    return Table(
        title="What it would take (nothing was asked)",
        columns=("", ""),
        rows=tuple(rows),
        note="Tokens in are estimated from characters and pixels. Retries and second askings come on top.",
    )
