"""Captions for lessons: the pixel captioner's sentences about images that don't exist, or sentences of made-up words.

The captioner's words belong to the package and come in any catalogue's captions, so a backbone may know them. The
measurements are drawn at random, except for the one trait that a lesson may be about: the main colour, the accent
colour, or the brightness. A sentence of made-up words holds its trait at a random position.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from demo_backbone.words import made_up_words
from mllmrec.vision.measurements import COLOURS, Composition, Shares
from mllmrec.vision.pixels import ACCENTS, BRIGHTNESS, Measurements, anything_goes, sentence

Writer = Callable[[random.Random, int], str]
"""Writes a caption that holds the trait of this number."""

COLOUR_WORDS, TOUCH_WORDS, LIGHT_WORDS = 1, 12, 16
"""Numbers of words after which a caption has named its main colour, its accent and its brightness in any case."""
MADE_UP_SHARE = 0.25
FILLERS = 12


def caption_writer(rng: random.Random, num_traits: int, caption_words: int) -> Writer:
    """A writer of captions with `num_traits` traits that the first `caption_words` words distinguish."""
    if rng.random() < MADE_UP_SHARE:
        return made_up_writer(rng, num_traits, caption_words)
    kinds: list[tuple[int, int, Writer]] = [
        (COLOUR_WORDS, len(COLOURS), _colour_writer(rng)),
        (COLOUR_WORDS, len(COLOURS), _colour_writer(rng)),
        (TOUCH_WORDS, len(ACCENTS), _touch_writer(rng)),
        (LIGHT_WORDS, len(BRIGHTNESS), light_writer),
    ]
    return rng.choice([write for words, most, write in kinds if words <= caption_words and num_traits <= most])


def made_up_writer(rng: random.Random, num_traits: int, caption_words: int) -> Writer:
    """Sentences of fresh words, one of which is the trait."""
    traits, fillers = made_up_words(rng, num_traits), made_up_words(rng, FILLERS)
    longest = min(caption_words, 10)

    def write(rng: random.Random, trait: int) -> str:
        words = rng.choices(fillers, k=rng.randint(min(2, longest - 1), longest - 1))
        words.insert(rng.randint(0, len(words)), traits[trait])
        return " ".join(words).capitalize() + "."

    return write


def light_writer(rng: random.Random, trait: int) -> str:
    """The captioner on an image of the brightness of this number."""
    begins = [begin for begin, _ in BRIGHTNESS]
    return sentence(measured(rng, brightness=begins[trait] + 0.02), anything_goes)


def measured(
    rng: random.Random, main: str | None = None, touch: str | None = None, brightness: float | None = None
) -> Measurements:
    """Measurements of an image that doesn't exist."""
    listed = rng.sample([name for name in COLOURS if name not in (main, touch)], 3)
    shares = sorted((rng.uniform(0.05, 0.3) for _ in range(3)), reverse=True)
    shares[0] += rng.uniform(0.05, 0.5)
    listed[0] = main or listed[0]
    whole = dict.fromkeys(COLOURS, 0.0) | dict(zip(listed, shares, strict=True))
    if touch is not None:
        whole[touch] = 0.03
    field = [tuple(rng.uniform(0.2, 0.8) for _ in range(3)) for _ in range(3)]
    return Measurements(
        whole=whole,
        rim=_part(rng, listed),
        above=_part(rng, listed),
        below=_part(rng, listed),
        chroma=rng.uniform(0, 0.12),
        warmth=rng.uniform(-0.06, 0.08),
        shapes=Composition(
            brightness=rng.uniform(0, 0.9) if brightness is None else brightness,
            contrast=rng.uniform(0, 0.4),
            detail=rng.uniform(0, 0.4),
            symmetry=rng.uniform(-0.2, 1),
            light=tuple(field),
            text=tuple(rng.random() < 0.3 for _ in range(3)),
        ),
    )


def _colour_writer(rng: random.Random) -> Writer:
    names = rng.sample(COLOURS, len(COLOURS))
    return lambda rng, trait: sentence(measured(rng, main=names[trait]), anything_goes)


def _touch_writer(rng: random.Random) -> Writer:
    names = rng.sample(sorted(ACCENTS), len(ACCENTS))
    others = [name for name in COLOURS if name not in ACCENTS]
    return lambda rng, trait: sentence(measured(rng, main=rng.choice(others), touch=names[trait]), anything_goes)


def _part(rng: random.Random, listed: Sequence[str]) -> Shares:
    return {rng.choice(listed): rng.uniform(0.2, 0.9), rng.choice(COLOURS): 0.1}
