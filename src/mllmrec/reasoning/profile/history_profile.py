"""The profile of one history: its distinctive features, what it lacks, and which of its items may be named.

A facet is a distinctive feature when at least two of the items share it and its score is above the threshold of its
kind. Features and titles that would spell the title of an item outside the history are never written.

`Titles` looks for all titles of a catalogue in a text at once. It is stricter than asking `Naming` of each item: any
occurrence of a title's words counts, even where it may be an ordinary word. A match that is part of a title of the
history doesn't count as another title.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mllmrec.data.naming import Naming, SpellingIndex
from mllmrec.data.prompts import plain
from mllmrec.data.sequences import Catalogue
from mllmrec.data.title_spellings import WrittenWords
from mllmrec.reasoning.profile.facets import Facet, Keyphrase, Statistics

# There are far more phrases than attributes, so more of them score high by chance.
LEAST_SCORE = {"attribute": 1.0, "era": 1.0, "form": 1.5, "title": 1.5, "picture": 1.5}
LACKING_SCORE = -1.2
MOST_OF_A_KIND = {"attribute": 3, "era": 2, "form": 1, "title": 2, "picture": 3}
MOST_SIGNALS, LATELY = 5, 3


@dataclass(frozen=True, kw_only=True)
class HistoryProfile:
    """One history, oldest first. `names` are its items by quoted title, None where the title may not be written.

    `signals` are its distinctive features, the best score first; `lacking` is a common attribute or era that none of
    its items has; `latest` are the attributes and eras of its last item, the best score first; `decades` are those of
    its items, in order; `repeats` is whether an item occurs twice.
    """

    names: tuple[str | None, ...]
    signals: tuple[Keyphrase, ...]
    lacking: Facet | None
    latest: tuple[Facet, ...]
    decades: tuple[str, ...]
    repeats: bool

    def __len__(self) -> int:
        return len(self.names)

    def is_recent(self, signal: Keyphrase) -> bool:
        """Whether one of the last three items has it."""
        return signal.positions[-1] >= len(self) - LATELY


class HistoryProfiler:
    """Makes the profiles of histories over one catalogue; `captions` may be empty."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str]) -> None:
        self.titles = Titles(catalogue)
        self._catalogue = catalogue
        self._statistics = Statistics(catalogue, captions)
        self._titles: dict[str, str] = {}
        self._spelt: dict[str, frozenset[str]] = {}

    def profile(self, history: Sequence[str]) -> HistoryProfile:
        phrases = self._statistics.keyphrases(history)
        shared = [
            phrase
            for phrase in phrases
            if phrase.score >= LEAST_SCORE[phrase.facet.kind] and len({history[at] for at in phrase.positions}) > 1
        ]
        plain_ones = [phrase for phrase in phrases if phrase.facet.is_plain]
        latest = [phrase for phrase in distinct(plain_ones) if phrase.positions[-1] == len(history) - 1]
        missing = (phrase for phrase in self._statistics.missing(history) if phrase.score <= LACKING_SCORE)
        return HistoryProfile(
            names=tuple(self._name(item, history) for item in history),
            signals=tuple(strongest(self._allowed(shared, history))),
            lacking=next((phrase.facet for phrase in self._allowed(missing, history)), None),
            latest=tuple(phrase.facet for phrase in self._allowed(latest, history)),
            decades=tuple(sorted(phrase.facet.text for phrase in plain_ones if is_decade(phrase.facet))),
            repeats=len(set(history)) < len(history),
        )

    def _allowed(self, phrases: Iterable[Keyphrase], history: Sequence[str]) -> Iterator[Keyphrase]:
        return (phrase for phrase in phrases if self._may_write(phrase.facet.text, history))

    def _name(self, item_id: str, history: Sequence[str]) -> str | None:
        if item_id not in self._titles:
            self._titles[item_id] = plain(self._catalogue.title(item_id)).replace('"', "'")
        title = self._titles[item_id]
        return f'"{title}"' if self._may_write(title, history) else None

    def _may_write(self, text: str, history: Sequence[str]) -> bool:
        """Whether `text` spells no title of an item outside the history."""
        if text not in self._spelt:
            self._spelt[text] = frozenset(self.titles.named(text))
        return self._spelt[text].issubset(history) or not self.titles.named(text, history)


def strongest(shared: Iterable[Keyphrase]) -> list[Keyphrase]:
    """The best few of each kind."""
    chosen, counts = list[Keyphrase](), Counter[str]()
    for phrase in distinct(shared):
        if counts[phrase.facet.kind] < MOST_OF_A_KIND[phrase.facet.kind]:
            counts[phrase.facet.kind] += 1
            chosen.append(phrase)
    return chosen[:MOST_SIGNALS]


def distinct(phrases: Iterable[Keyphrase]) -> list[Keyphrase]:
    """Without those that share a word, or all of two or more positions, with an earlier one of the same source."""
    chosen: list[Keyphrase] = []
    for phrase in phrases:
        if not any(_repeats(phrase, other) for other in chosen):
            chosen.append(phrase)
    return chosen


def is_decade(facet: Facet) -> bool:
    return facet.kind == "era" and " " not in facet.text


class Titles:
    """Finds the titles of a catalogue in texts."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._naming = Naming(catalogue)
        self._spellings = SpellingIndex(self._naming, catalogue.ids)

    def named(self, text: str, history: Sequence[str] = ()) -> set[str]:
        """The ids of the items outside `history` whose title occurs in `text`.

        >>> from mllmrec.records import Item
        >>> titled = {"1": "Paper Moon, The (1996)", "2": "Paper", "3": "Lake"}
        >>> titles = Titles(Catalogue([Item(item_id=key, title=title) for key, title in titled.items()]))
        >>> sorted(titles.named("The Paper Moon at the lake")), titles.named("The Paper Moon at the lake", ["1"])
        (['1', '2', '3'], {'3'})
        """
        readings = [reading.words for reading in WrittenWords(text).readings]
        if set[str]().union(*map(self._matches, readings)).issubset(history):
            return set()
        own = {spelling for item in history for spelling in self._naming.spellings(item)}
        for spelling in sorted(own, key=len, reverse=True):
            readings = [without(written, spelling) for written in readings]
        return set[str]().union(*map(self._matches, readings)).difference(history)

    def _matches(self, written: tuple[str, ...]) -> set[str]:
        matches = (self._spellings.at(written, start) for start in range(len(written)))
        return {item for at_start in matches for _, items in at_start for item in items}


def without(written: tuple[str, ...], part: tuple[str, ...]) -> tuple[str, ...]:
    """`written` with each occurrence of `part` blanked out.

    >>> without(("a", "b", "c", "b"), ("b",))
    ('a', '', 'c', '')
    """
    kept = list(written)
    for start in range(len(written) - len(part) + 1):
        if tuple(kept[start : start + len(part)]) == part:
            kept[start : start + len(part)] = [""] * len(part)
    return tuple(kept)


def _repeats(phrase: Keyphrase, other: Keyphrase) -> bool:
    if phrase.facet.source != other.facet.source or phrase.facet.kind == "attribute":
        return False
    shared = set(phrase.facet.text.split()) & set(other.facet.text.split())
    return bool(shared) or (phrase.positions == other.positions and len(phrase.positions) > 1)
