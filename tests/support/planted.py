"""Models whose behaviour is known, asked through the real prompts: scorers that read what they are shown.

A prompt reaches a scorer as tokens, one for each letter, so a planted scorer sees exactly what a language model would:
the lines of the history, the candidates with their titles and captions, and a hint where there is one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllmrec.data.draws import generator
from mllmrec.data.sequences import Catalogue, Line
from mllmrec.evaluation.probing.findings import Study, findings
from mllmrec.evaluation.probing.plan import HintedExamples, make_plan
from mllmrec.evaluation.probing.stage import ConditionScorer
from mllmrec.models.base import ScoringTask
from mllmrec.models.chat import Encoder
from mllmrec.records import Item, RankingExample, example_id
from mllmrec.settings.evaluation import PROBES

THEMES = ("amber", "cobalt", "willow", "granite", "velvet", "comet", "harbor", "saffron")
COLOURS = dict(zip(THEMES, ("orange", "blue", "green", "grey", "red", "white", "teal", "yellow"), strict=True))
COPIES = 6
ITEMS = tuple(f"{number}" for number in range(len(THEMES) * COPIES))
END = 0
LINE = re.compile(r"\[ITEM_(?P<item>[^\]]+)\] (?P<title>[^|]*)(?: \| (?P<caption>.*))?")
HEADS = ("A user chose these, oldest first:", "Candidates:", "Notes on this user, for reference only:")


def theme_of(item: str) -> str:
    return THEMES[int(item) % len(THEMES)]


TITLES = {item: f"{theme_of(item)} thing {item}" for item in ITEMS}
CAPTIONS = {item: f"a {COLOURS[theme_of(item)]} picture" for item in ITEMS}
CATALOGUE = Catalogue(Item(item_id=item, title=title) for item, title in TITLES.items())
COUNTS = {item: 200 // (int(item) + 1) for item in ITEMS}
LINES = [Line(user_id="u", items=(item,) * count, line_index=0) for item, count in COUNTS.items() if count]


@dataclass(frozen=True)
class Shown:
    """One line of a prompt."""

    item: str
    title: str
    caption: str | None


@dataclass(frozen=True)
class Seen:
    """A prompt as its reader understands it."""

    history: list[Shown]
    candidates: list[Shown]
    hint: str


Judge = Callable[[Seen], Sequence[float]]


def read(prompt: str) -> Seen:
    """The parts of a user's turn."""
    parts: dict[str, list[str]] = {head: [] for head in HEADS}
    head = ""
    for line in prompt.splitlines()[:-1]:
        head = line if line in HEADS else head
        parts[head] += [line] if line != head else []
    history, candidates = (
        [Shown(**match.groupdict()) for match in map(LINE.fullmatch, parts[head]) if match] for head in HEADS[:2]
    )
    return Seen(history, candidates, "\n".join(parts[HEADS[2]]))


class LetterChat:
    """A chat format whose tokens are letters."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def prompt_ids(self, text: str) -> list[int]:
        return self.encode(text)

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.encode(answer), END]

    def harmless(self, text: str) -> str:
        return text


class PlantedScorer:
    """A CandidateScorer that judges by what it reads; `asked` counts lists. Batches come back in another order."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.asked = judge, 0

    def score(self, tasks: Sequence[ScoringTask]) -> Iterator[tuple[int, list[float]]]:
        self.asked += len(tasks)
        for index in reversed(range(len(tasks))):
            seen = read("".join(map(chr, tasks[index].prompt_T)))
            answers = ["".join(map(chr, answer[:-1])) for answer in tasks[index].answers_C]
            assert answers == [f"[ITEM_{line.item}] {line.title}" for line in seen.candidates]
            yield index, [float(score) for score in self.judge(seen)]


def condition_scorer(
    judge: Judge, captions: dict[str, str] = CAPTIONS, catalogue: Catalogue = CATALOGUE
) -> ConditionScorer:
    chat: Any = LetterChat()
    encoder = Encoder.make(chat, catalogue, captions, 10_000)
    return ConditionScorer(PlantedScorer(judge), encoder, scored="answer", seed=42)


def world(num_users: int = 120, split: Any = "test") -> list[RankingExample]:
    """Users whose last item shares a theme with the target and with no other candidate; the rest is chance."""
    examples = []
    for number in range(num_users):
        rng = generator(1, "planted", f"{split}{number}")
        theme = rng.choice(THEMES)
        last, target = rng.sample([item for item in ITEMS if theme_of(item) == theme], 2)
        others = [item for item in rng.sample(ITEMS, len(ITEMS)) if theme_of(item) != theme]
        candidates = [target, *others[:9]]
        rng.shuffle(candidates)
        history = (*others[9:12], last)
        examples.append(
            RankingExample(
                example_id=example_id(str(number), target, history),
                user_id=str(number),
                history=history,
                candidates=tuple(candidates),
                target_id=target,
                split=split,
            )
        )
    return examples


def probed(
    judge: Judge,
    probes: Sequence[str] = PROBES,
    examples: Sequence[RankingExample] = (),
    captions: dict[str, str] = CAPTIONS,
    hinted: HintedExamples | None = None,
    rotations: int = 10,
) -> dict[str, Any]:
    """What the probes say of a planted model."""
    examples = examples or world()
    hinted = hinted or HintedExamples(examples=[], hints={})
    plan = make_plan(probes, examples, captions, hinted, rotations=rotations)
    opened_scorer = condition_scorer(judge, captions)
    scores: dict[str, list[Any]] = {}
    for chunk in plan.chunks():
        found = opened_scorer.score(chunk.condition, chunk.examples, hinted.hints)
        scores.setdefault(chunk.condition.name, []).extend(map(np.array, found))
    study = Study(
        plan=plan,
        scores=scores,
        seconds=Counter(scores.keys()),
        lines=LINES,
        split_lines=[],
        top_k=(3, 5, 10),
        seed=42,
    )
    return findings(study, len(examples))
