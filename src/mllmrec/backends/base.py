"""What the rest of the program may ask of a model: score given answers, or write one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Tokens = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """One prompt and the answers to be scored after it, all as token ids; each answer ends with the end token."""

    prompt_T: Tokens
    answers_C: Sequence[Tokens]


class CandidateScorer(Protocol):
    """Gives exact scores."""

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        """Yield (index of the task, log-probability of each answer in nats), batch by batch, in any order."""
        ...


class TextGenerator(Protocol):
    """Writes answers."""

    def generate(self, prompts: Sequence[Tokens], *, num_answers: int, max_new_tokens: int) -> list[list[str]]:
        """The `num_answers` best continuations of each prompt, best first, as text without control tokens."""
        ...
