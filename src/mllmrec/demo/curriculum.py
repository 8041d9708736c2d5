"""What is practised in which order: choosing from ever longer lists, then every kind of cue at once.

Long lists from the start leave chance only after a long time, because nothing can be gained from reading them before
comparing works. So a level is left when its held-out lessons are
mostly answered right, and a quarter of the lessons come from the levels before, so that nothing is forgotten. Only the
last level has a fixed length.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from mllmrec.demo.lessons import CAPTION_CUES, Cue, Shape

REVISION, NEVER = 0.25, 2.0
CUES: tuple[Cue, ...] = ("title", "title", "caption", "caption", "both", "both", "mixed", "last", "last", "seen")
CAPTION_WORDS = (6, 6, 6, 12)
WITH_CAPTIONS = 0.55


@dataclass(frozen=True, kw_only=True)
class Level:
    """Lessons of these shapes until `pass_mark` of held-out ones are answered right, or until `most_steps`.

    No shapes means all sorts. A step takes `parts` batches of about `part_tokens` tokens, each of one shape. Beside an
    id's tokens, which count fully, the rest of an answer counts with `rest_weight`, and spelling the prompt's words as
    they were spelt before with `spelling_weight`.
    """

    name: str
    shapes: tuple[Shape, ...] = ()
    pass_mark: float = 0.85
    most_steps: int = 2000
    parts: int = 1
    part_tokens: int = 2500
    rest_weight: float = 0.2
    spelling_weight: float = 0.0


def curriculum(last_steps: int) -> tuple[Level, ...]:
    """The levels in order; the last one takes `last_steps`."""
    return (
        Level(name="2 candidates", shapes=(Shape(history=1, candidates=2, title_words=1),)),
        Level(name="3 candidates", shapes=(Shape(history=2, candidates=3, title_words=1),)),
        Level(name="4 candidates", shapes=(Shape(history=3, candidates=4),)),
        Level(name="6 candidates", shapes=(Shape(history=4, candidates=6),)),
        Level(name="10 candidates", shapes=(Shape(history=6, candidates=10),)),
        Level(
            name="short captions",
            shapes=(
                Shape(history=2, candidates=3, cue="caption", caption_words=6),
                Shape(history=4, candidates=5, cue="caption", caption_words=6),
                Shape(history=4, candidates=5, cue="title", caption_words=6),
            ),
            most_steps=700,
        ),
        Level(
            name="everything",
            pass_mark=NEVER,
            most_steps=last_steps,
            parts=3,
            part_tokens=1500,
            rest_weight=0.4,
            spelling_weight=0.5,
        ),
    )


def draw_shape(rng: random.Random, levels: tuple[Level, ...], number: int) -> Shape:
    """The shape of a batch at this level: one of its own, or, for revision, one of an earlier level."""
    level = levels[number]
    if not level.shapes:
        return widest_shape(rng)
    earlier = [shape for one in levels[:number] for shape in one.shapes]
    return rng.choice(earlier if earlier and rng.random() < REVISION else level.shapes)


def widest_shape(rng: random.Random) -> Shape:
    """Any shape that a real question of the demo's size may have, long ones the most often."""
    cue = rng.choice(CUES)
    shape = Shape(
        history=max(rng.randint(1, 8), rng.randint(1, 8)),
        candidates=max(rng.randint(2, 10), rng.randint(2, 10)),
        cue=cue,
        title_words=rng.choice((1, 2, 2, 2, 3)),
        noise=rng.choice((0.0, 0.15, 0.3)),
    )
    if cue not in CAPTION_CUES and rng.random() > WITH_CAPTIONS:
        return shape
    return replace(shape, caption_words=rng.choice(CAPTION_WORDS))
