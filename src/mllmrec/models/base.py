"""What the rest of the program may ask of a model: score given answers, write one, or write a text about pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mllmrec.storage.log_lines import Usage

Tokens = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class ScoringTask:
    """One prompt and the answers to be scored after it, all as token ids; each answer ends with the end token."""

    prompt_T: Tokens
    answers_C: Sequence[Tokens]


class CandidateScorer(Protocol):
    """Scores given answers exactly."""

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        """Yield (index of the task, log-probability of each answer in nats), batch by batch, in any order."""
        ...


class TextGenerator(Protocol):
    """Writes answers."""

    def generate(self, prompts: Sequence[Tokens], *, num_answers: int, max_new_tokens: int) -> list[list[str]]:
        """The `num_answers` best continuations of each prompt, best first, as text without control tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class Thought:
    """What a model wrote before an answer: its text, how many `tokens` were sampled, and whether it ended by itself."""

    text: str
    tokens: int
    finished: bool


class Thinker(Protocol):
    """Writes thoughts by sampling."""

    def think(
        self,
        prompts: Sequence[Tokens],
        draws: Sequence[Sequence[Iterator[float]]],
        *,
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[list[Thought]]:
        """For each prompt, which ends where a thought is opened, a thought for each of its `draws`.

        A draw gives numbers in [0, 1), one for each token. A thought takes at most `max_tokens`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image as models take it: `rgb` is (height, width, 3) uint8, `encoded` the same image as a file's bytes."""

    rgb: NDArray[np.uint8]
    encoded: bytes
    media_type: Literal["image/jpeg", "image/png"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to be written. `key` never leaves the machine; `pictures` come before the text, in order.

    Several pictures are numbered, so that the text can speak of `Picture 2`.
    """

    key: str
    text: str
    pictures: tuple[Picture, ...] = ()

    def parts(self) -> list[str | Picture]:
        """What the model is shown, in order."""
        if len(self.pictures) < 2:
            return [*self.pictures, self.text]
        numbered = [(f"Picture {number}: ", picture) for number, picture in enumerate(self.pictures, 1)]
        return [*(part for pair in numbered for part in pair), self.text]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of a request: `text`, or None and a `failure` in a few stable words; and what it took."""

    key: str
    text: str | None
    failure: str | None = None
    usage: Usage


class Teacher(Protocol):
    """Writes texts: captions, chains of thought. `name` is the model's, as records and manifests name it."""

    name: str

    def answer(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield replies as they finish, in any order, drawing requests only as they can be taken up.

        A request that fails is a reply with a failure. Raises BackendError when no request can succeed any more: a
        wrong key, an unknown model.
        """
        ...
