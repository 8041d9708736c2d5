"""The levels of pre-training in their order: ever longer lists, then all kinds of cues at once.

Training on long lists from the start stays at chance for a long time, because reading them brings nothing before
comparing works. So a level ends when most of its held-out lessons are answered right, and a quarter of the lessons come
from earlier levels, so that nothing is forgotten. Only the last three levels, over which the learning rate falls, have
a fixed length.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from demo_backbone.lessons import Shape

REVISION = 0.25
SHORT = (
    Shape(history=2, candidates=3),
    Shape(history=4, candidates=6, noise=0.15),
    Shape(history=3, candidates=4, caption_words=6),
    Shape(history=3, candidates=4, cue="caption", caption_words=6),
    Shape(history=3, candidates=4, cue="both", caption_words=6),
    Shape(history=3, candidates=4, cue="last"),
)
LONG = (
    Shape(history=6, candidates=10, noise=0.15),
    Shape(history=7, candidates=10, title_words=3, noise=0.3),
    Shape(history=6, candidates=10, cue="mixed"),
    Shape(history=5, candidates=8, cue="last"),
    Shape(history=6, candidates=8, caption_words=6, noise=0.15),
    Shape(history=6, candidates=10, cue="caption", caption_words=6),
    Shape(history=6, candidates=10, cue="both", caption_words=6),
    Shape(history=6, candidates=8, cue="both", caption_words=6, noise=0.2),
    Shape(history=5, candidates=6, cue="caption", caption_words=12, noise=0.15),
    Shape(history=4, candidates=6, cue="seen", caption_words=6),
)
PRACTICE = (
    Shape(history=6, candidates=10, noise=0.15),
    Shape(history=6, candidates=10, cue="mixed"),
    Shape(history=6, candidates=10, caption_words=6, noise=0.3),
    Shape(history=6, candidates=10, cue="mixed", caption_words=6),
    Shape(history=6, candidates=10, cue="caption", caption_words=6, noise=0.15),
    Shape(history=6, candidates=10, cue="both", caption_words=6, noise=0.2),
    Shape(history=6, candidates=10, cue="pair", caption_words=6),
    Shape(history=6, candidates=10, cue="pair", caption_words=6, noise=0.2),
)
JUDGING = (
    Shape(history=6, candidates=10, cue="number"),
    Shape(history=6, candidates=10, cue="number", caption_words=6),
    Shape(history=6, candidates=10, cue="judged"),
    Shape(history=6, candidates=10, cue="judged", noise=0.15),
    Shape(history=6, candidates=10, cue="judged", caption_words=6),
    Shape(history=6, candidates=10, cue="judged", caption_words=6, noise=0.15),
    Shape(history=6, candidates=10, cue="mixed", caption_words=6),
    Shape(history=6, candidates=10, cue="pair", caption_words=6, noise=0.2),
)
MANY_PARTS: dict[str, Any] = {
    "parts": 4,
    "part_tokens": 1200,
    "recitals": 4,
    "rest_weight": 0.4,
    "spelling_weight": 0.5,
}


@dataclass(frozen=True, kw_only=True)
class Level:
    """Lessons of these shapes until `pass_mark` of held-out ones are answered right, or until `most_steps`.

    A step takes `parts` batches of about `part_tokens` tokens, each of one shape, at `rate` times the plan's learning
    rate, which falls to almost nothing over a level that `falls`. Beside an id's tokens, which count fully, the rest of
    an answer counts with `rest_weight`; reciting the titles of `recitals` other items, with `recital_weight`; and
    spelling the prompt's words as they were spelt before, with `spelling_weight`.
    """

    name: str
    shapes: tuple[Shape, ...]
    pass_mark: float = 0.85
    most_steps: int = 2000
    parts: int = 1
    part_tokens: int = 2500
    rate: float = 1.0
    falls: bool = False
    recitals: int = 0
    rest_weight: float = 0.2
    recital_weight: float = 1.0
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
        Level(name="short lists", shapes=SHORT, most_steps=350, rate=0.6, **MANY_PARTS),
        Level(name="long lists", shapes=LONG, most_steps=800, falls=True, rate=0.6, **MANY_PARTS),
        Level(name="practice", shapes=PRACTICE, most_steps=1200, falls=True, rate=0.5, **MANY_PARTS),
        Level(name="judging", shapes=JUDGING, most_steps=last_steps, falls=True, rate=0.5, **MANY_PARTS),
    )


def draw_shapes(rng: random.Random, levels: tuple[Level, ...], number: int) -> list[Shape]:
    """The shapes of a step's parts at this level: its own, no two alike, or, for revision, those of earlier levels."""
    level = levels[number]
    earlier = [shape for one in levels[:number] for shape in one.shapes]
    if level.parts == 1:
        return [rng.choice(earlier if earlier and rng.random() < REVISION else level.shapes)]
    own = rng.sample(level.shapes, level.parts)
    return [rng.choice(earlier) if earlier and rng.random() < REVISION else shape for shape in own]
