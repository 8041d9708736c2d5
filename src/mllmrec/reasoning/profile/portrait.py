"""What there is to say about one history: its telling traits, what it lacks, and which of its items may be named.

A trait tells something when at least two of the items share it and it scores above the catalogue's chance. Traits and
titles that would spell the title of an item outside the history are never said.

Which items a text names by title, over a whole catalogue at once, so that a writer can keep to the history's own.

Stricter than asking `Naming` of each item: any occurrence of a title's words counts, even where it may be an ordinary
word. What is a title of the history is no other title.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mllmrec.data.naming import Naming, SpellingIndex
from mllmrec.data.prompts import plain
from mllmrec.data.sequences import Catalogue
from mllmrec.data.title_spellings import WrittenWords
from mllmrec.reasoning.profile.facets import Facet
from mllmrec.reasoning.profile.keyphrases import Keyphrase, Statistics

# There are far more phrases than attributes, so more of them look telling by chance.
TELLING = {"attribute": 1.0, "era": 1.0, "form": 1.5, "title": 1.5, "picture": 1.5}
LACKING = -1.2
MOST_OF_A_KIND = {"attribute": 3, "era": 2, "form": 1, "title": 2, "picture": 3}
MOST_SIGNALS, LATELY = 5, 3


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One history, oldest first. `names` are its items as they may be named, None where a title can't be.

    `signals` are its telling traits, the strongest first; `lacking` is a common trait that none of its items shows;
    `latest` are the most telling traits of its last item, `decades` those the items come from, in order.
    """

    names: tuple[str | None, ...]
    signals: tuple[Keyphrase, ...]
    lacking: Facet | None
    latest: tuple[Facet, ...]
    decades: tuple[str, ...]
    repeats: bool

    def __len__(self) -> int:
        return len(self.names)

    def is_lively(self, signal: Keyphrase) -> bool:
        """Whether one of the last choices shows it."""
        return signal.places[-1] >= len(self) - LATELY


class Portraitist:
    """Makes the portraits of histories over one catalogue; `captions` may be empty."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str]) -> None:
        self.titles = Titles(catalogue)
        self._catalogue = catalogue
        self._statistics = Statistics(catalogue, captions)
        self._titles: dict[str, str] = {}
        self._spelt: dict[str, frozenset[str]] = {}

    def portrait(self, history: Sequence[str]) -> Portrait:
        found = self._statistics.keyphrases(history)
        shared = [
            each
            for each in found
            if each.score >= TELLING[each.facet.kind] and len({history[at] for at in each.places}) > 1
        ]
        plainly = [each for each in found if each.facet.is_plain]
        latest = [each for each in distinct(plainly) if each.places[-1] == len(history) - 1]
        missing = (each for each in self._statistics.missing(history) if each.score <= LACKING)
        return Portrait(
            names=tuple(self._name(item, history) for item in history),
            signals=tuple(strongest(self._sayable(shared, history))),
            lacking=next((each.facet for each in self._sayable(missing, history)), None),
            latest=tuple(each.facet for each in self._sayable(latest, history)),
            decades=tuple(sorted(each.facet.text for each in plainly if is_decade(each.facet))),
            repeats=len(set(history)) < len(history),
        )

    def _sayable(self, found: Iterable[Keyphrase], history: Sequence[str]) -> Iterator[Keyphrase]:
        return (each for each in found if self._may_say(each.facet.text, history))

    def _name(self, item_id: str, history: Sequence[str]) -> str | None:
        if item_id not in self._titles:
            self._titles[item_id] = plain(self._catalogue.title(item_id)).replace('"', "'")
        title = self._titles[item_id]
        return f'"{title}"' if self._may_say(title, history) else None

    def _may_say(self, text: str, history: Sequence[str]) -> bool:
        """Whether `text` spells no title but those of the history."""
        if text not in self._spelt:
            self._spelt[text] = frozenset(self.titles.named(text))
        return self._spelt[text].issubset(history) or not self.titles.named(text, history)


def strongest(shared: Iterable[Keyphrase]) -> list[Keyphrase]:
    """The best few of each kind."""
    chosen, counts = list[Keyphrase](), Counter[str]()
    for each in distinct(shared):
        if counts[each.facet.kind] < MOST_OF_A_KIND[each.facet.kind]:
            counts[each.facet.kind] += 1
            chosen.append(each)
    return chosen[:MOST_SIGNALS]


def distinct(found: Iterable[Keyphrase]) -> list[Keyphrase]:
    """Those that don't repeat a better one: no phrase that overlaps it, none shown by the same items, no era in it."""
    chosen: list[Keyphrase] = []
    for each in found:
        if not any(_repeats(each, other) for other in chosen):
            chosen.append(each)
    return chosen


def _repeats(each: Keyphrase, other: Keyphrase) -> bool:
    if each.facet.source != other.facet.source or each.facet.kind == "attribute":
        return False
    shared = set(each.facet.text.split()) & set(other.facet.text.split())
    return bool(shared) or (each.places == other.places and len(each.places) > 1)


def is_decade(facet: Facet) -> bool:
    return facet.kind == "era" and " " not in facet.text


class Titles:
    """The titles of a catalogue, to be looked for in texts."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._naming = Naming(catalogue)
        self._spellings = SpellingIndex(self._naming, catalogue.ids)

    def named(self, text: str, history: Sequence[str] = ()) -> set[str]:
        """The ids of the items outside `history` whose title occurs in `text`.

        >>> from mllmrec.records import Item
        >>> shelf = {"1": "Paper Moon, The (1996)", "2": "Paper", "3": "Lake"}
        >>> titles = Titles(Catalogue([Item(item_id=key, title=title) for key, title in shelf.items()]))
        >>> sorted(titles.named("The Paper Moon at the lake")), titles.named("The Paper Moon at the lake", ["1"])
        (['1', '2', '3'], {'3'})
        """
        readings = [reading.words for reading in WrittenWords(text).readings]
        if set[str]().union(*map(self._found, readings)).issubset(history):
            return set()
        own = {spelling for item in history for spelling in self._naming.spellings(item)}
        for spelling in sorted(own, key=len, reverse=True):
            readings = [without(written, spelling) for written in readings]
        return set[str]().union(*map(self._found, readings)).difference(history)

    def _found(self, written: tuple[str, ...]) -> set[str]:
        places = (self._spellings.at(written, start) for start in range(len(written)))
        return {item for place in places for _, items in place for item in items}


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
