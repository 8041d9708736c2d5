"""The writer without weights: four steps about a history, from what its items share and the catalogue at large doesn't.

It reads captions, titles and attributes of the history's items against the catalogue's statistics and says what stands
out, where the history is heading, what to look for, and what the next item is like. That makes the pipeline run without
a model and gives traces written by one something to be measured against. It can't leak: nothing here takes a target,
the statistics come from the catalogue and not from sequences, even the draw of a wording depends on the history alone,
and no item outside the history is named by its title.

How the profile writer says things: facets in the three places where they stand, lists, and turns of phrase.

Every turn of phrase has several wordings, so that traces aren't all alike; one is drawn for each history. Wordings that
happen to spell a title of the catalogue ("fall", "safe") are put aside when the writer is made.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mllmrec.data.draws import generator
from mllmrec.data.sequences import Catalogue
from mllmrec.reasoning.profile.facets import Facet, Kind
from mllmrec.reasoning.profile.portrait import LATELY, Portrait, Portraitist

PROFILE_VERSION = "2026-11.1"
FEW_SIGNALS, MOST_EXAMPLES, MOST_OWN, FEWEST_CRITERIA = 2, 2, 2, 3

SHOWN: Mapping[Kind, str] = {
    "attribute": "{be} of the {name} {text}",
    "era": "{come} from the {text}",
    "form": "{have} {text}",
    "title": "{have} {text} in the title",
    "picture": "{have} a picture described with {text}",
}
AS_NOUN: Mapping[Kind, str] = {
    "attribute": "the {name} {text}",
    "era": "the {text}",
    "form": "{text}",
    "title": "titles with {text}",
    "picture": "pictures described with {text}",
}
AS_CRITERION: Mapping[Kind, str] = {
    "attribute": "of the {name} {text}",
    "era": "from the {text}",
    "form": "with {text}",
    "title": "with {text} in the title",
    "picture": "with a picture described with {text}",
}

TURNS = {
    "spread": (
        "the {count} choices have little in common",
        "no single trait runs through the {count} choices",
        "the {count} choices are a mixed lot",
    ),
    "keeps": (
        "{latest} keeps to {nouns}, so the user is likely to go on in that way",
        "with {latest} the user stays with {nouns} and probably wants more of the same",
        "{latest} confirms the interest in {nouns}, and the next choice should go the same way",
    ),
    "leaves": (
        "{latest} turns away from {nouns}{own}, and the next choice may follow it or come back",
        "{latest} is a change from {nouns}{own}, after which the user either explores further or returns",
    ),
    "open": (
        "the user is exploring, and {latest} is the best guide to what follows{own}",
        "nothing but {latest} points the way{own}, so the user seems to be sampling",
    ),
    "fading": (
        "{nouns} had a place earlier but not in the last {count} choices",
        "interest in {nouns} seems to be over, as the last {count} choices show none of it",
    ),
    "profile": (
        "most likely {what}",
        "the user will probably choose {what}",
        "a good match would be {what}",
    ),
}


class ProfileWriter:
    """Writes the four steps of any history over one catalogue; `captions` may be empty."""

    name = "profile"

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str], seed: int = 42) -> None:
        self._portraitist = Portraitist(catalogue, captions)
        self._seed = seed
        spells = self._portraitist.titles.named
        self._turns = {
            turn: [text for text in texts if not spells(text)] or list(texts) for turn, texts in TURNS.items()
        }

    def write(self, history: Sequence[str]) -> str:
        """The lines `Step 1:` to `Step 4:`; the same history gives the same lines."""
        portrait = self._portraitist.portrait(history)
        rng = generator(self._seed, "profile", " ".join(history))
        steps = (
            self._preferences(portrait, rng),
            self._intent(portrait, rng),
            "; ".join(f"({number}) {text}" for number, text in enumerate(criteria(portrait), 1)),
            self._say("profile", rng, what=next_item(portrait)),
        )
        return "\n".join(f"Step {number}: {sentence(text)}" for number, text in enumerate(steps, 1))

    def _preferences(self, portrait: Portrait, rng: random.Random) -> str:
        """Step 1: what the choices share, with examples, and what they lack."""
        parts = observations(portrait)
        told = [listed(parts) if parts else self._say("spread", rng, count=len(portrait))]
        if len(parts) < FEW_SIGNALS and portrait.decades[1:]:
            told.append(f"together they reach from the {portrait.decades[0]} to the {portrait.decades[-1]}")
        if portrait.lacking is not None:
            told.append(f"none {shown(portrait.lacking, 1)}")
        return "; ".join(told)

    def _intent(self, portrait: Portrait, rng: random.Random) -> str:
        """Step 2: whether the latest choice goes on with what stood out, and what has faded."""
        kept = [each.facet for each in portrait.signals if each.places[-1] == len(portrait) - 1][:2]
        faded = [each.facet for each in portrait.signals if not portrait.is_lively(each)][:1]
        latest, own = name_of(portrait, 1), own_traits(portrait)
        towards = f", towards {nouns(own)}" if own else ""
        if kept:
            text = self._say("keeps", rng, latest=latest, nouns=nouns(kept))
            return text + ("; " + self._say("fading", rng, nouns=nouns(faded), count=LATELY) if faded else "")
        if portrait.signals:
            return self._say("leaves", rng, latest=latest, nouns=nouns(wanted(portrait)[:2]), own=towards)
        return self._say("open", rng, latest=latest, own=towards)

    def _say(self, turn: str, rng: random.Random, **words: object) -> str:
        return rng.choice(self._turns[turn]).format(**words)


def observations(portrait: Portrait) -> list[str]:
    """`6 of the 9 choices are of the genre Comedy ("A" and "B")`; later ones are shorter and have other examples."""
    total, parts, told = len(portrait), list[str](), set[str]()
    for number, signal in enumerate(portrait.signals):
        count = len(signal.places)
        share = f"all {total}" if count == total else f"{count} of the {total}" if not number else str(count)
        names = dict.fromkeys(name for place in reversed(signal.places) if (name := portrait.names[place]) is not None)
        examples = sorted(names, key=told.__contains__)[:MOST_EXAMPLES] if number < MOST_EXAMPLES else []
        told.update(examples)
        text = f"{share} {'choices ' if not number else ''}{shown(signal.facet, count)}"
        parts.append(text + (f" ({listed(examples)})" if examples else ""))
    return parts


def wanted(portrait: Portrait) -> list[Facet]:
    """The telling traits to look for, those of the last choices first; of eras only one, for an item has one."""
    found = [each.facet for each in sorted(portrait.signals, key=lambda signal: not portrait.is_lively(signal))]
    eras = [facet for facet in found if facet.kind == "era"]
    return [facet for facet in found if facet not in eras[1:]]


def own_traits(portrait: Portrait) -> list[Facet]:
    """What the latest choice brings of its own."""
    told = {each.facet for each in portrait.signals}
    return [facet for facet in portrait.latest if facet not in told][:MOST_OWN]


def criteria(portrait: Portrait) -> list[str]:
    """Three to five things to look for: telling traits, nearness to the latest choice, and what to avoid."""
    found = [criteria_words([facet]) for facet in wanted(portrait)[:FEWEST_CRITERIA]]
    found.append(f"close to {name_of(portrait, 1)}")
    if portrait.lacking is not None:
        found.append(f"not {criteria_words([portrait.lacking])}")
    spare = [f"{criteria_words([facet])}, as the latest choice is" for facet in own_traits(portrait)]
    spare += [f"in keeping with {name_of(portrait, 2)}"] if len(portrait) > 1 else []
    spare += ["known from before" if portrait.repeats else "not among the choices so far", "easy to like"]
    return [*found, *spare[: max(0, FEWEST_CRITERIA - len(found))]]


def next_item(portrait: Portrait) -> str:
    """Step 4: the next item in one phrase."""
    traits, latest = criteria_words(wanted(portrait)[:FEWEST_CRITERIA]), name_of(portrait, 1)
    if traits:
        return f"an item {traits}, close to {latest}"
    own = criteria_words(own_traits(portrait))
    return f"an item close to {latest}" + (f" and perhaps {own}" if own else "")


def name_of(portrait: Portrait, back: int) -> str:
    """A late choice by title where that may be said; `back` 1 is the latest."""
    return portrait.names[-back] or ("the latest choice" if back == 1 else "the choice before it")


def sentence(text: str) -> str:
    """With a capital letter in front and a full stop behind."""
    return f"{text[0].upper()}{text[1:]}."


def shown(facet: Facet, count: int) -> str:
    """What `count` items do that show a facet: `come from the 1990s`."""
    verbs = (
        {"be": "is", "come": "comes", "have": "has"} if count == 1 else {"be": "are", "come": "come", "have": "have"}
    )
    return SHOWN[facet.kind].format(name=facet.name, text=_text(facet), **verbs)


def nouns(facets: Sequence[Facet]) -> str:
    """Facets as what somebody is interested in, like ones together: `the genre Crime and Drama and the 1990s`."""
    return listed(_together(facets, AS_NOUN))


def criteria_words(facets: Sequence[Facet]) -> str:
    """Facets as what an item must be: `of the genre Crime and from the 1990s`."""
    return listed(_together(facets, AS_CRITERION))


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def _together(facets: Sequence[Facet], sayings: Mapping[Kind, str]) -> list[str]:
    texts: dict[tuple[Kind, str], list[str]] = {}
    for facet in facets:
        texts.setdefault(facet.source, []).append(_text(facet))
    return [sayings[kind].format(name=name, text=listed(own)) for (kind, name), own in texts.items()]


def _text(facet: Facet) -> str:
    return f'"{facet.text}"' if facet.kind in ("title", "picture") else facet.text
