"""Questions of several callers scored together.

Whoever finds the model free scores all that wait, its own question among them; while it does, others line up. So nobody
waits for company, and the more callers there are, the more questions share a forward pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

ABANDONED: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)
"""Set by a caller whose client may go: once the event is set, its questions leave the line unanswered."""


class AbandonedError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(kw_only=True, eq=False)
class _Waiting(Generic[Question, Answer]):
    questions: Sequence[Question]
    abandoned: threading.Event | None
    answers: list[Answer] | None = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class SharedScoring(Generic[Question, Answer]):
    """`score` for callers of many threads; at most `most` questions go into one call of it, one caller's at least.

    An error of a call that others shared is theirs only if their questions fail alone as well.
    """

    def __init__(self, score: Callable[[Sequence[Question]], list[Answer]], most: int) -> None:
        self.score, self.most = score, most
        self._line: deque[_Waiting[Question, Answer]] = deque()
        self._free = threading.Lock()

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in the order of the questions."""
        own = _Waiting[Question, Answer](questions=questions, abandoned=ABANDONED.get())
        self._line.append(own)
        while not own.done.is_set():
            with self._free:
                if not own.done.is_set():
                    self._serve(self._next_in_line())
        if own.error is not None:
            raise own.error
        assert own.answers is not None, "what is done without an error has answers"
        return own.answers

    @property
    def waiting(self) -> int:
        """How many callers stand in line, those not counted whose questions are read just now."""
        return len(self._line)

    def _next_in_line(self) -> list[_Waiting[Question, Answer]]:
        chosen: list[_Waiting[Question, Answer]] = []
        count = 0
        while self._line and (not chosen or count + len(self._line[0].questions) <= self.most):
            waiting = self._line.popleft()
            if waiting.abandoned is not None and waiting.abandoned.is_set():
                waiting.error = AbandonedError()
                waiting.done.set()
                continue
            chosen.append(waiting)
            count += len(waiting.questions)
        return chosen

    def _serve(self, chosen: Sequence[_Waiting[Question, Answer]]) -> None:
        """Answer those chosen, all at once; one by one where that fails."""
        if not chosen:
            return
        try:
            answers = iter(self.score([question for waiting in chosen for question in waiting.questions]))
            for waiting in chosen:
                waiting.answers = [next(answers) for _ in waiting.questions]
        except BaseException as error:
            if len(chosen) > 1 and isinstance(error, Exception):
                for waiting in chosen:
                    self._serve([waiting])
                return
            for waiting in chosen:
                waiting.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for waiting in chosen:
                if waiting.answers is not None or waiting.error is not None:
                    waiting.done.set()
