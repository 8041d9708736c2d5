"""Choice tasks from worlds that last for one question.

Each lesson has a world of its own: words, traits and ids are fresh, so nothing can be learned by heart, only how to
read a history and a list, compare, and copy. An item has a trait in its title and one in its caption; the cue says
which of them decides the answer:

    title    the history shares a word of the title with the answer
    caption  it shares a trait of the caption
    both     it shares both, and each of the others has at most one of them
    pair     it shares the trait of the caption and goes back and forth between two words of the title; the answer has
             the trait and either word, and each of the others at most one of these
    mixed    the history goes back and forth between two words, and the answer has either
    last     each item of the history has a word of its own, and the answer has the last one's
    seen     the same for the trait of the caption
    number   numbers in titles, none counting as 1, are mostly low in the history, or mostly high; the answer's is the
             lowest, or the highest
    judged   the choice of people with a taste (`judgements.py`): a few words, numbers and, with captions, a
             trait speak for a candidate, and the answer is the one for which most speaks

With noise, some items of the history follow nothing, and now and then a wrong candidate follows those.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from demo_backbone.judgements import Question, Traits, by_number, judged
from demo_backbone.sayings import caption_writer
from demo_backbone.words import made_up_words
from mllmrec.records import RankingExample

Cue = Literal["title", "caption", "both", "pair", "mixed", "last", "seen", "number", "judged"]
CUES: tuple[Cue, ...] = get_args(Cue)
CAPTION_CUES: tuple[Cue, ...] = ("caption", "both", "pair", "seen")
"""Cues that need captions."""
READ_CUES: tuple[Cue, ...] = (*CAPTION_CUES, "judged")
"""Cues that count captions where there are any, so that no item may be without."""
HIGHEST_IDS = (99, 999, 999, 999, 9999)
NUM_TITLE_TRAITS, NUM_OTHER_WORDS = 14, 10
WITHOUT_CAPTION, NUMBERED, SHUFFLED_TITLES = 0.04, 0.25, 0.2
COPIED_NOISE = 0.3


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a lesson looks like: how much of what. `caption_words` 0 is for titles alone."""

    history: int
    candidates: int
    cue: Cue = "title"
    title_words: int = 2
    caption_words: int = 0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A question with its own little catalogue."""

    example: RankingExample
    titles: dict[str, str]
    captions: dict[str, str]
    shape: Shape


def make_lesson(rng: random.Random, shape: Shape) -> Lesson:
    """A lesson of that shape, in a world that no other lesson knows."""
    history, target, others = _traits(rng, shape)
    listed = [target, *others]
    order = rng.sample(range(len(listed)), len(listed))
    traits = [*history, *(listed[index] for index in order)]
    ids = _ids(rng, len(traits))
    chosen, offered = ids[: len(history)], ids[len(history) :]
    example = RankingExample(
        example_id="lesson",
        user_id="lesson",
        history=tuple(chosen),
        candidates=tuple(offered),
        target_id=offered[order.index(0)],
        split="train",
    )
    titles = _titles(rng, shape, traits)
    captions = _captions(rng, shape, [trait.caption for trait in traits])
    return Lesson(
        example=example,
        titles=dict(zip(ids, titles, strict=True)),
        captions={item: caption for item, caption in zip(ids, captions, strict=True) if caption},
        shape=shape,
    )


def num_caption_traits(shape: Shape) -> int:
    """How many kinds of captions a lesson needs: few where they aren't the point."""
    return max(5, shape.history + 2) if shape.cue == "seen" else 5


def _traits(rng: random.Random, shape: Shape) -> Question:
    """Of the history, of the answer, and of the other candidates."""
    match shape.cue:
        case "last":
            return _by_last(rng, shape, in_title=True)
        case "seen":
            return _by_last(rng, shape, in_title=False)
        case "mixed":
            liked = [rng.randint(0, 1) for _ in range(shape.history)]
            history = [Traits(title, _caption(rng, shape)) for title in liked]
            target = Traits(rng.choice(liked), _caption(rng, shape))
            others = [Traits(_other_title(rng, 2), _caption(rng, shape)) for _ in range(shape.candidates - 1)]
            return history, target, others
        case "number":
            return by_number(rng, shape.history, shape.candidates, NUM_TITLE_TRAITS, num_caption_traits(shape))
        case "judged":
            kinds, captioned = (NUM_TITLE_TRAITS, num_caption_traits(shape)), shape.caption_words > 0
            return judged(rng, shape.history, shape.candidates, *kinds, shape.noise, captioned=captioned)
        case _:
            return _by_taste(rng, shape)


def _by_taste(rng: random.Random, shape: Shape) -> Question:
    """The history shares one trait, or both, but for noise. Of a pair of words an item has either."""
    words = 2 if shape.cue == "pair" else 1

    def follows() -> Traits:
        title = rng.randrange(words) if shape.cue != "caption" else rng.randrange(NUM_TITLE_TRAITS)
        return Traits(title, 0 if shape.cue != "title" else _caption(rng, shape))

    def strays() -> Traits:
        title = _other_title(rng, words) if shape.cue != "caption" else rng.randrange(NUM_TITLE_TRAITS)
        return Traits(title, _other_caption(rng, shape) if shape.cue != "title" else _caption(rng, shape))

    def halfway() -> Traits:
        by_title = Traits(rng.randrange(words), _other_caption(rng, shape))
        by_caption = Traits(_other_title(rng, words), 0)
        return rng.choice([by_title, by_caption, strays()])

    num_stray = min(sum(rng.random() < shape.noise for _ in range(shape.history)), (shape.history - 1) // 2)
    stray = [strays() for _ in range(num_stray)]
    history = [*stray, *(follows() for _ in range(shape.history - num_stray))]
    rng.shuffle(history)
    others = [halfway() if shape.cue in ("both", "pair") else strays() for _ in range(shape.candidates - 1)]
    if stray and rng.random() < COPIED_NOISE:
        others[0] = rng.choice(stray)
    return history, follows(), others


def _by_last(rng: random.Random, shape: Shape, *, in_title: bool) -> Question:
    """Each item of the history has a trait of its own; the wrong candidates have those of earlier ones, or none."""
    count = NUM_TITLE_TRAITS if in_title else num_caption_traits(shape)
    kinds = rng.sample(range(count), count)
    past, new = kinds[: shape.history], kinds[shape.history :]

    def item(kind: int) -> Traits:
        return Traits(kind, _caption(rng, shape)) if in_title else Traits(rng.randrange(NUM_TITLE_TRAITS), kind)

    wrong = [item(rng.choice([*past[:-1], *rng.sample(new, min(2, len(new)))])) for _ in range(shape.candidates - 1)]
    return [item(kind) for kind in past], item(past[-1]), wrong


def _other_title(rng: random.Random, first: int = 1) -> int:
    return rng.randrange(first, NUM_TITLE_TRAITS)


def _caption(rng: random.Random, shape: Shape) -> int:
    return rng.randrange(num_caption_traits(shape))


def _other_caption(rng: random.Random, shape: Shape) -> int:
    return rng.randrange(1, num_caption_traits(shape))


def _ids(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(1, rng.choice(HIGHEST_IDS) + 1), count)]


def _titles(rng: random.Random, shape: Shape, traits: Sequence[Traits]) -> Iterator[str]:
    """Titles of a few words, one of which is the trait: at the same position in all titles, or anywhere.

    Some have a number, at random where the lesson isn't about numbers.
    """
    words = [word.capitalize() for word in made_up_words(rng, NUM_TITLE_TRAITS + NUM_OTHER_WORDS)]
    kinds, others = words[:NUM_TITLE_TRAITS], words[NUM_TITLE_TRAITS:]
    count = rng.randint(1, shape.title_words)
    position = None if rng.random() < SHUFFLED_TITLES else rng.randrange(count)
    for trait in traits:
        title = rng.sample(others, count - 1)
        title.insert(rng.randrange(count) if position is None else position, kinds[trait.title])
        number = trait.number
        if number is None:
            number = rng.randint(2, 9) if rng.random() < NUMBERED else 1
        yield " ".join([*title, str(number)] if number > 1 else title)


def _captions(rng: random.Random, shape: Shape, traits: Sequence[int]) -> list[str]:
    """Captions, empty for the few items that have none, unless captions are what the lesson is about."""
    if not shape.caption_words:
        return [""] * len(traits)
    write = caption_writer(rng, num_caption_traits(shape), shape.caption_words)
    without = 0.0 if shape.cue in READ_CUES else WITHOUT_CAPTION
    texts = (write(rng, trait) for trait in traits)
    return [" ".join(text.split()[: shape.caption_words]) if rng.random() >= without else "" for text in texts]
