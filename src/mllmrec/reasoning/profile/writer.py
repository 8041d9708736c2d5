"""The writer without a model: four steps about a history, from what distinguishes its items from the catalogue.

It compares captions, titles and attributes of the history's items with the catalogue's statistics, and writes what
stands out, where the history is heading, what to look for, and what the next item is like. With it the pipeline runs
without a model, and traces that a model wrote have a baseline. It can't leak the target: nothing here takes a target,
the statistics come from the catalogue and not from sequences, the draw of a wording depends on the history alone, and
no item outside the history is named by its title.

Every turn of phrase has several wordings, so that traces aren't all alike; one is drawn for each history. Wordings that
happen to spell a title of the catalogue ("fall", "safe") are removed when the writer is made.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mllmrec.data.draws import generator
from mllmrec.data.sequences import Catalogue
from mllmrec.reasoning.profile.facets import Facet, Kind
from mllmrec.reasoning.profile.history_profile import LATELY, HistoryProfile, HistoryProfiler

PROFILE_VERSION = "2026-11.1"
FEW_SIGNALS, MOST_EXAMPLES, MOST_OWN, FEWEST_CRITERIA = 2, 2, 2, 3

AS_PREDICATE: Mapping[Kind, str] = {
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
    """Writes the four steps for any history over one catalogue; `captions` may be empty."""

    name = "profile"

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str], seed: int = 42) -> None:
        self._profiler = HistoryProfiler(catalogue, captions)
        self._seed = seed
        spells = self._profiler.titles.named
        self._turns = {
            turn: [text for text in texts if not spells(text)] or list(texts) for turn, texts in TURNS.items()
        }

    def write(self, history: Sequence[str]) -> str:
        """The lines `Step 1:` to `Step 4:`; the same history gives the same lines."""
        profile = self._profiler.profile(history)
        rng = generator(self._seed, "profile", " ".join(history))
        steps = (
            self._preferences(profile, rng),
            self._intent(profile, rng),
            "; ".join(f"({number}) {text}" for number, text in enumerate(criteria(profile), 1)),
            self._wording("profile", rng, what=next_item(profile)),
        )
        return "\n".join(f"Step {number}: {sentence(text)}" for number, text in enumerate(steps, 1))

    def _preferences(self, profile: HistoryProfile, rng: random.Random) -> str:
        """Step 1: what the choices share, with examples, and what they lack."""
        parts = observations(profile)
        clauses = [listed(parts) if parts else self._wording("spread", rng, count=len(profile))]
        if len(parts) < FEW_SIGNALS and profile.decades[1:]:
            clauses.append(f"together they reach from the {profile.decades[0]} to the {profile.decades[-1]}")
        if profile.lacking is not None:
            clauses.append(f"none {predicate(profile.lacking, 1)}")
        return "; ".join(clauses)

    def _intent(self, profile: HistoryProfile, rng: random.Random) -> str:
        """Step 2: whether the latest choice has the distinctive features, and which feature no late choice has."""
        kept = [signal.facet for signal in profile.signals if signal.positions[-1] == len(profile) - 1][:2]
        faded = [signal.facet for signal in profile.signals if not profile.is_recent(signal)][:1]
        latest, own = name_of(profile, 1), own_features(profile)
        towards = f", towards {nouns(own)}" if own else ""
        if kept:
            text = self._wording("keeps", rng, latest=latest, nouns=nouns(kept))
            return text + ("; " + self._wording("fading", rng, nouns=nouns(faded), count=LATELY) if faded else "")
        if profile.signals:
            return self._wording("leaves", rng, latest=latest, nouns=nouns(wanted(profile)[:2]), own=towards)
        return self._wording("open", rng, latest=latest, own=towards)

    def _wording(self, turn: str, rng: random.Random, **words: object) -> str:
        return rng.choice(self._turns[turn]).format(**words)


def observations(profile: HistoryProfile) -> list[str]:
    """`6 of the 9 choices are of the genre Comedy ("A" and "B")`; later ones are shorter and have other examples."""
    total, parts, named = len(profile), list[str](), set[str]()
    for number, signal in enumerate(profile.signals):
        count = len(signal.positions)
        share = f"all {total}" if count == total else f"{count} of the {total}" if not number else str(count)
        names = dict.fromkeys(name for at in reversed(signal.positions) if (name := profile.names[at]) is not None)
        examples = sorted(names, key=named.__contains__)[:MOST_EXAMPLES] if number < MOST_EXAMPLES else []
        named.update(examples)
        text = f"{share} {'choices ' if not number else ''}{predicate(signal.facet, count)}"
        parts.append(text + (f" ({listed(examples)})" if examples else ""))
    return parts


def wanted(profile: HistoryProfile) -> list[Facet]:
    """The distinctive features to look for, those of the last choices first; of eras only one, as an item has one."""
    signals = sorted(profile.signals, key=lambda signal: not profile.is_recent(signal))
    facets = [signal.facet for signal in signals]
    eras = [facet for facet in facets if facet.kind == "era"]
    return [facet for facet in facets if facet not in eras[1:]]


def own_features(profile: HistoryProfile) -> list[Facet]:
    """Attributes and eras of the latest choice that aren't distinctive of the history."""
    distinctive = {signal.facet for signal in profile.signals}
    return [facet for facet in profile.latest if facet not in distinctive][:MOST_OWN]


def criteria(profile: HistoryProfile) -> list[str]:
    """Three to five criteria: distinctive features, nearness to the latest choice, and what to avoid."""
    chosen = [criteria_words([facet]) for facet in wanted(profile)[:FEWEST_CRITERIA]]
    chosen.append(f"close to {name_of(profile, 1)}")
    if profile.lacking is not None:
        chosen.append(f"not {criteria_words([profile.lacking])}")
    spare = [f"{criteria_words([facet])}, as the latest choice is" for facet in own_features(profile)]
    spare += [f"in keeping with {name_of(profile, 2)}"] if len(profile) > 1 else []
    spare += ["known from before" if profile.repeats else "not among the choices so far", "easy to like"]
    return [*chosen, *spare[: max(0, FEWEST_CRITERIA - len(chosen))]]


def next_item(profile: HistoryProfile) -> str:
    """Step 4: the next item in one phrase."""
    features, latest = criteria_words(wanted(profile)[:FEWEST_CRITERIA]), name_of(profile, 1)
    if features:
        return f"an item {features}, close to {latest}"
    own = criteria_words(own_features(profile))
    return f"an item close to {latest}" + (f" and perhaps {own}" if own else "")


def name_of(profile: HistoryProfile, back: int) -> str:
    """A late choice by title where the title may be written; `back` 1 is the latest."""
    return profile.names[-back] or ("the latest choice" if back == 1 else "the choice before it")


def sentence(text: str) -> str:
    """With a capital letter in front and a full stop behind."""
    return f"{text[0].upper()}{text[1:]}."


def predicate(facet: Facet, count: int) -> str:
    """The predicate for `count` items that have a facet: `come from the 1990s`."""
    verbs = (
        {"be": "is", "come": "comes", "have": "has"} if count == 1 else {"be": "are", "come": "come", "have": "have"}
    )
    return AS_PREDICATE[facet.kind].format(name=facet.name, text=_text(facet), **verbs)


def nouns(facets: Sequence[Facet]) -> str:
    """Facets as nouns, those of one source together: `the genre Crime and Drama and the 1990s`."""
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


def _together(facets: Sequence[Facet], patterns: Mapping[Kind, str]) -> list[str]:
    texts: dict[tuple[Kind, str], list[str]] = {}
    for facet in facets:
        texts.setdefault(facet.source, []).append(_text(facet))
    return [patterns[kind].format(name=name, text=listed(own)) for (kind, name), own in texts.items()]


def _text(facet: Facet) -> str:
    return f'"{facet.text}"' if facet.kind in ("title", "picture") else facet.text
