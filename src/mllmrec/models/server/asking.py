"""Asks a teacher for all texts of a stage: twice for those that break a rule, and no further than the budget.

Texts that break a rule are asked for again in a second pass at the end. The working log keeps the broken rule, so a
start after a crash goes on within either pass. Requests are built one at a time, and every reply is logged before the
next one is read.

The cost is known by prices and estimated before anything is spent. A server tells how many tokens it counted; where it
doesn't, and before the first call, they are estimated from the length of the text and the size of the pictures. An
estimate is always told as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mllmrec.errors import BackendError, SettingsError
from mllmrec.models.base import Reply, Request, Teacher
from mllmrec.progress import progress
from mllmrec.records import Table
from mllmrec.storage.record_log import Work

RequestOf = Callable[[str, str | None], Request | str]
Accept = Callable[[str, str], Mapping[str, Any] | str]
ASCII_PER_TOKEN = 4.0
OTHERS_PER_TOKEN = 1.5
PIXELS_PER_TOKEN = 1024
MILLION = 1_000_000


def ask_all(
    work: Work,
    keys: Sequence[str],
    teacher: Teacher,
    request_of: RequestOf,
    accept: Accept,
    spending: Spending | None,
    title: str,
) -> None:
    """Bring every key of `keys` that has none to a record: a row, or a failure.

    `request_of(key, rule)` builds the request, with the rule that the first answer broke, or says in a few words why
    there is nothing to ask, which fails the key. `accept(key, text)` returns the row, or the rule that the text
    breaks: it is asked again once, then the rule is the reason of the failure.

    Raises BackendError when the budget is spent; all that came back is kept.
    """
    todo = work.todo(keys)
    asking = _Asking(work, teacher, request_of, accept, spending)
    with progress(title, len(todo)) as advance:
        asking.ask([key for key in todo if work.reason_again(key) is None], advance)
        asking.ask([key for key in todo if work.reason_again(key) is not None], advance)
    if asking.num_recorded < len(todo) and asking.is_out_of_money:
        spending = spending or Spending()
        raise BackendError(
            f"The budget of {spending.budget or 0:g} is spent, or the next request would pass it: "
            f"{spending.money(work.usage):.4g} went on "
            f"{work.usage['calls']:,} calls. {asking.num_recorded:,} of {len(todo):,} records were made by this start; "
            f"{len(todo) - asking.num_recorded:,} are left. What is done is kept: the same command with a larger "
            "--budget goes on from here."
        )


class _Asking:
    """One start of a stage; `num_recorded` counts the keys that it brought to a record.

    Each process of a launch has its share of what the budget leaves. Money is set aside for every request that is on
    its way, as much as the replies took so far in the mean.
    """

    def __init__(
        self, work: Work, teacher: Teacher, request_of: RequestOf, accept: Accept, spending: Spending | None
    ) -> None:
        self._work, self._teacher, self._spending = work, teacher, spending
        self._request_of, self._accept = request_of, accept
        self.num_recorded = self._num_replied = self._num_asked = 0
        self.is_out_of_money = False
        self._spent_before = self._spent()

    def _spent(self) -> float:
        return self._spending.money(self._work.usage) if self._spending is not None else 0.0

    def _can_pay(self, request: Request) -> bool:
        """Whether what is spent, what is on its way and this request stay within this process's share."""
        if self._spending is None or self._spending.budget is None:
            return True
        share = (self._spending.budget - self._spent_before) / self._work.size
        spent = self._spent() - self._spent_before
        read = self._spending.money({"prompt_tokens": estimate_prompt_tokens(request)})
        expected = spent / self._num_replied if self._num_replied else read
        return spent + (self._num_asked - self._num_replied + 1) * expected <= share

    def ask(self, keys: Sequence[str], advance: Callable[[int], None]) -> None:
        """One pass over `keys`, as far as the budget goes."""
        with closing(self._replies(keys)) as replies:
            for reply in replies:
                before = self.num_recorded
                self._record(reply)
                advance(self.num_recorded - before)

    def _replies(self, keys: Sequence[str]) -> Generator[Reply, None, None]:
        """The teacher's replies; closing this closes the teacher's own iterator, which cuts the calls in flight."""
        if keys:
            yield from self._teacher.answer(self._requests(keys))

    def _requests(self, keys: Sequence[str]) -> Iterator[Request]:
        for key in keys:
            request = self._request_of(key, self._work.reason_again(key))
            if isinstance(request, str):
                self._fail(key, request)
                continue
            if not self._can_pay(request):
                self.is_out_of_money = True
                return
            self._num_asked += 1
            yield request

    def _record(self, reply: Reply) -> None:
        self._num_replied += 1
        if reply.text is None:
            self._fail(reply.key, reply.failure or "no answer", reply)
            return
        row = self._accept(reply.key, reply.text)
        if not isinstance(row, str):
            self._work.done(reply.key, row, reply.usage)
            self.num_recorded += 1
        elif self._work.reason_again(reply.key) is None:
            self._work.again(reply.key, row, reply.usage)
        else:
            self._fail(reply.key, row, reply)

    def _fail(self, key: str, reason: str, reply: Reply | None = None) -> None:
        self._work.failed(key, reason, reply.usage if reply is not None else {})
        self.num_recorded += 1


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
