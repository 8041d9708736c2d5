"""The facets of items in words, and those in which a history stands out.

The facets of an item are its attributes, era, form of the title, and phrases of title and caption.

Attributes are the further columns of the titles file (`Comedy|Drama` are two), the era is read from a year in brackets
at the end of a title, and the form notes a number, a subtitle or a second title in brackets.

A phrase is a word, or two words with at most two small words between (`fine detail`, `man in a hat`), within one
clause. A phrase doesn't begin or end with a stop word; words that only mean something beside another (`fine`, `upper`)
never stand alone.

The distinctive facets of a history are found by log-odds against the catalogue, with an informative Dirichlet prior:
Monroe, Colaresi and Quinn, "Fightin' Words" (2008), equations 15 to 22, counting items in place of tokens: an
item has a facet or it doesn't. With y of a history's n items having it, c of the m other items of the catalogue, and a
prior of a + b = 10 items split in the proportion of the whole catalogue,

    delta = log((y + a) / (n - y + b)) - log((c + a) / (m - c + b))
    variance = 1/(y + a) + 1/(n - y + b) + 1/(c + a) + 1/(m - c + b)
    score = delta / sqrt(variance)

y and n are weighted by recency: an item's weight halves every five steps back, and the weights of a history add up to
its length. Only items that have the facet's source at all (a caption, a year, the column) count, so that a missing
image isn't taken for a preference.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from mllmrec.data.prompts import plain
from mllmrec.data.sequences import Catalogue

Kind = Literal["attribute", "era", "form", "title", "picture"]
Source = tuple[Kind, str]
YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
LONGEST_VALUE, SHORTEST_WORD, WIDEST_GAP = 40, 3, 2

_NUMBER = re.compile(r"\b(?:\d+|I{2,3}|IV|VI{0,3}|IX)\b")
_SUBTITLE = re.compile(r"\S:\s+\S|\s-\s")
_BRACKETS = re.compile(r"\([^()]{4,}\)")
PRIOR_ITEMS = 10.0
HALF_LIFE = 5.0
COMMON_SHARE = 0.15


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LINKS = _set("a across an around at below beside by for from in into la le near of on over the to under with")
# Words that captions have of any image.
MORE_STOP_WORDS = _set(
    """image picture photo poster cover scene background foreground show shows showing depicts features featuring make
    makes vol volume"""
)
# Informative words that scikit-learn counts as stop words.
NO_STOP_WORDS = _set(
    """back bill bottom cry detail empty fire front full interest mill mine move serious side sincere system thick thin
    top"""
)
# Words that belong to the next one: `dark red` is neither dark nor red.
MODIFIERS = _set("dark light pale deep slate upper lower")
WEAK_WORDS = _set(
    """above back bottom bright brightest centre center contrast darkest detail edged edge fine full high large left
    light lit little low lower marks medium middle nearly evenly right side small soft strong text text-like toned
    top touched upper"""
)

_CLAUSES = re.compile(r"[.,;:!?()\[\]/|\"“”—–]+|\s-+\s")
_WORDS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Facet(NamedTuple):
    """One feature of an item. `name` is the column of an attribute and empty for the other kinds."""

    kind: Kind
    name: str
    text: str

    @property
    def source(self) -> Source:
        """Where the facet was read; only items that have this source can have the facet."""
        return self.kind, self.name

    @property
    def is_plain(self) -> bool:
        """Whether the facet is an attribute or an era, for which one item is enough, and no phrase, alike by chance."""
        return self.kind in ("attribute", "era")


def facets_of(item_id: str, catalogue: Catalogue, captions: Mapping[str, str]) -> set[Facet]:
    """All facets of an item; without a title it has none from a title.

    >>> from mllmrec.records import Item
    >>> catalogue = Catalogue([Item(item_id="1", title="Paper Moon (1996)", attributes=(("genres", "Comedy|Drama"),))])
    >>> sorted(facet.text for facet in facets_of("1", catalogue, {}))
    ['1990s', 'Comedy', 'Drama', 'late 1990s', 'moon', 'paper', 'paper moon']
    """
    item = catalogue.get(item_id)
    facets = {Facet("picture", "", phrase) for phrase in phrases(captions.get(item_id, ""))}
    if item is None:
        return facets
    facets |= {Facet("title", "", phrase) for phrase in phrases(YEAR.sub("", item.title))}
    facets |= {Facet("era", "", era) for era in eras(item.title)}
    facets |= {Facet("form", "", form) for form in forms(item.title)}
    for column, value in item.attributes:
        facets |= {Facet("attribute", singular(column), part) for part in _values(value)}
    return facets


def eras(title: str) -> list[str]:
    """The decade of the year that ends a title, and which half of it.

    >>> eras("Paper Moon (1996)")
    ['1990s', 'late 1990s']
    """
    if not (match := YEAR.search(title)):
        return []
    year = int(match[1])
    return [f"{year // 10 * 10}s", f"{'early' if year % 10 < 5 else 'late'} {year // 10 * 10}s"]


def forms(title: str) -> list[str]:
    """How a title is built.

    >>> forms("Paper Moon II (Luna di carta) (1996)")
    ['a number in the title', 'a second title in brackets']
    """
    text = YEAR.sub("", title)
    matches = {
        "a number in the title": _NUMBER.search(text),
        "a second title in brackets": _BRACKETS.search(text),
        "a subtitle": _SUBTITLE.search(text),
    }
    return [form for form, match in matches.items() if match]


def singular(column: str) -> str:
    """The name of a column as one value of it is called.

    >>> [singular(name) for name in ("genres", "main_categories", "series", "brand")]
    ['genre', 'main category', 'series', 'brand']
    """
    name = plain(column.replace("_", " ")).casefold()
    if name.endswith("ies") and not name.endswith(("series", "species")):
        return name.removesuffix("ies") + "y"
    return name if name.endswith(("ss", "us", "is", "series", "species")) else name.removesuffix("s")


def _values(value: str) -> Iterator[str]:
    for part in value.split("|"):
        text = plain(part)
        if text and len(text) <= LONGEST_VALUE:
            yield text


def phrases(text: str) -> Iterator[str]:
    """Words and pairs in lower case, in order, repeated as they are.

    >>> list(phrases("A man in a red hat, fine detail"))
    ['man', 'red', 'man in a red', 'hat', 'red hat', 'fine detail']
    """
    for clause in _CLAUSES.split(plain(text)):
        words, before = _joined(_WORDS.findall(clause.casefold())), -1
        for at, word in enumerate(words):
            if word in LINKS:
                continue
            if not _is_informative(word):
                before = -1
                continue
            if word not in WEAK_WORDS:
                yield word
            if before >= 0 and at - before <= WIDEST_GAP + 1:
                yield " ".join(words[before : at + 1])
            before = at


def _joined(words: list[str]) -> list[str]:
    """`words` with each modifier joined to the word that it belongs to."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in MODIFIERS and _is_informative(word):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def _is_informative(word: str) -> bool:
    return len(word) >= SHORTEST_WORD and word not in LINKS and word not in stop_words()


@cache
def stop_words() -> frozenset[str]:
    """Words too common to be informative; scikit-learn is imported when the first phrase is read."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return MORE_STOP_WORDS.union(ENGLISH_STOP_WORDS) - NO_STOP_WORDS


@dataclass(frozen=True, kw_only=True)
class Keyphrase:
    """A facet, its score, and the positions in the history (0 is the oldest) of the items that have it."""

    facet: Facet
    score: float
    positions: tuple[int, ...]


class Statistics:
    """How many items of a catalogue have each facet; computed once per run.

    Facets of a single item are dropped, as no two items of a history can share them.
    """

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str]) -> None:
        items = dict.fromkeys((*catalogue.ids, *captions))
        facets_by_item = {item: facets_of(item, catalogue, captions) for item in items}
        self._sources = {item: frozenset(facet.source for facet in facets) for item, facets in facets_by_item.items()}
        self._num_items = Counter(source for sources in self._sources.values() for source in sources)
        self._num_having = Counter(facet for facets in facets_by_item.values() for facet in facets)
        self._facets = {
            item: tuple(sorted(facet for facet in facets if self._num_having[facet] > 1))
            for item, facets in facets_by_item.items()
        }
        self._common = sorted(facet for facet in self._num_having if self._is_common(facet))

    def facets(self, item_id: str) -> tuple[Facet, ...]:
        """The facets that an item shares with another item of the catalogue."""
        return self._facets.get(item_id, ())

    def keyphrases(self, history: Sequence[str]) -> list[Keyphrase]:
        """The facets that two different items of a history share, and all its attributes and eras, best score first."""
        positions = defaultdict[Facet, list[int]](list)
        for position, item in enumerate(history):
            for facet in self.facets(item):
                positions[facet].append(position)
        shared = {
            facet: having
            for facet, having in positions.items()
            if facet.is_plain or len({history[position] for position in having}) > 1
        }
        scored = self._scored(history, shared)
        return sorted(scored, key=lambda phrase: (-phrase.score, -len(phrase.facet.text), phrase.facet))

    def missing(self, history: Sequence[str]) -> list[Keyphrase]:
        """Common attributes and eras that no item of a history has, the lowest score first."""
        present = {facet for item in history for facet in self.facets(item)}
        absent: dict[Facet, list[int]] = {facet: [] for facet in self._common if facet not in present}
        return sorted(self._scored(history, absent), key=lambda phrase: (phrase.score, phrase.facet))

    def _scored(self, history: Sequence[str], positions: Mapping[Facet, Sequence[int]]) -> Iterator[Keyphrase]:
        weights, totals = recency_weights(len(history)), self._totals(history)
        for facet, having in positions.items():
            own_total, others_total, size = totals[facet.source]
            num_having = self._num_having[facet]
            score = log_odds(
                own=sum([weights[position] for position in having]),
                own_total=own_total,
                others=num_having - len({history[position] for position in having}),
                others_total=others_total,
                share=num_having / size,
            )
            yield Keyphrase(facet=facet, score=score, positions=tuple(having))

    def _totals(self, history: Sequence[str]) -> dict[Source, tuple[float, int, int]]:
        """For each source: the weight of a history's items that have it, how many others have it, how many have it."""
        weights, weight, having = recency_weights(len(history)), defaultdict[Source, float](float), Counter[Source]()
        for position, item in enumerate(history):
            for source in self._sources.get(item, ()):
                weight[source] += weights[position]
                having[source] += item not in history[:position]
        return {source: (weight[source], size - having[source], size) for source, size in self._num_items.items()}

    def _is_common(self, facet: Facet) -> bool:
        share = self._num_having[facet] / self._num_items[facet.source]
        return facet.is_plain and COMMON_SHARE <= share < 1


def recency_weights(length: int) -> list[float]:
    """Weights of a history's positions, oldest first, halving every five steps back and adding up to `length`.

    >>> [round(weight, 3) for weight in recency_weights(6)]
    [0.688, 0.79, 0.907, 1.042, 1.197, 1.375]
    """
    raw = [0.5 ** ((length - 1 - position) / HALF_LIFE) for position in range(length)]
    return [weight * length / sum(raw) for weight in raw]


def log_odds(*, own: float, own_total: float, others: float, others_total: float, share: float) -> float:
    """The score of the formula above; 0 for what all items or none of them have.

    `share` is the facet's share of the whole catalogue, by which the prior's ten items are split.
    """
    if not 0 < share < 1:
        return 0.0
    a, b = PRIOR_ITEMS * share, PRIOR_ITEMS * (1 - share)
    cells = (own + a, own_total - own + b, others + a, others_total - others + b)
    delta = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return delta / math.sqrt(sum(1 / cell for cell in cells))
