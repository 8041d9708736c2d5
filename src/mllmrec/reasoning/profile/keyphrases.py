"""Which facets a history stands for: log-odds against the catalogue, with an informative Dirichlet prior.

After Monroe, Colaresi and Quinn, "Fightin' Words" (2008), equations 15 to 22, counted in items in place of tokens: an
item shows a facet or it doesn't. With y of a history's n items showing it, c of the m other items of the catalogue, and
a prior of a + b = 10 items split as the whole catalogue is,

    delta = log((y + a) / (n - y + b)) - log((c + a) / (m - c + b))
    variance = 1/(y + a) + 1/(n - y + b) + 1/(c + a) + 1/(m - c + b)
    score = delta / sqrt(variance)

y and n count late items for more: an item's weight halves every five steps back, and the weights of a history add up
to its length. Only items count that have the facet's source at all (a caption, a year, the column), so that missing
images say nothing about taste.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mllmrec.data.sequences import Catalogue
from mllmrec.reasoning.profile.facets import Facet, Source, facets_of

PRIOR_ITEMS = 10.0
HALF_LIFE = 5.0
COMMON_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Keyphrase:
    """A facet, its score, and the places in the history (0 is the oldest) that show it."""

    facet: Facet
    score: float
    places: tuple[int, ...]


class Statistics:
    """How many items of a catalogue show each facet; made once per run.

    Facets of a single item are dropped: no two items of a history could share them.
    """

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str]) -> None:
        found = {item: facets_of(item, catalogue, captions) for item in dict.fromkeys((*catalogue.ids, *captions))}
        self._sources = {item: frozenset(facet.source for facet in facets) for item, facets in found.items()}
        self._num_items = Counter(source for sources in self._sources.values() for source in sources)
        self._num_showing = Counter(facet for facets in found.values() for facet in facets)
        self._facets = {
            item: tuple(sorted(facet for facet in facets if self._num_showing[facet] > 1))
            for item, facets in found.items()
        }
        self._common = sorted(facet for facet in self._num_showing if self._is_common(facet))

    def facets(self, item_id: str) -> tuple[Facet, ...]:
        """What an item shares with any other."""
        return self._facets.get(item_id, ())

    def keyphrases(self, history: Sequence[str]) -> list[Keyphrase]:
        """What two different items of a history share, and all its attributes and eras, the most telling first."""
        places = defaultdict[Facet, list[int]](list)
        for place, item in enumerate(history):
            for facet in self.facets(item):
                places[facet].append(place)
        told = {
            facet: shown for facet, shown in places.items() if facet.is_plain or len({history[at] for at in shown}) > 1
        }
        return sorted(self._scored(history, told), key=lambda each: (-each.score, -len(each.facet.text), each.facet))

    def missing(self, history: Sequence[str]) -> list[Keyphrase]:
        """Common attributes and eras that no item of a history shows, the most conspicuously missing first."""
        shown = {facet for item in history for facet in self.facets(item)}
        absent: dict[Facet, list[int]] = {facet: [] for facet in self._common if facet not in shown}
        return sorted(self._scored(history, absent), key=lambda each: (each.score, each.facet))

    def _scored(self, history: Sequence[str], places: Mapping[Facet, Sequence[int]]) -> Iterator[Keyphrase]:
        weights, totals = recency_weights(len(history)), self._totals(history)
        for facet, shown in places.items():
            own_total, others_total, size = totals[facet.source]
            showing = self._num_showing[facet]
            score = log_odds(
                own=sum([weights[place] for place in shown]),
                own_total=own_total,
                others=showing - len({history[place] for place in shown}),
                others_total=others_total,
                share=showing / size,
            )
            yield Keyphrase(facet=facet, score=score, places=tuple(shown))

    def _totals(self, history: Sequence[str]) -> dict[Source, tuple[float, int, int]]:
        """For each source: the weight of a history's items that have it, how many others have it, how many have it."""
        weights, weight, having = recency_weights(len(history)), defaultdict[Source, float](float), Counter[Source]()
        for place, item in enumerate(history):
            for source in self._sources.get(item, ()):
                weight[source] += weights[place]
                having[source] += item not in history[:place]
        return {source: (weight[source], size - having[source], size) for source, size in self._num_items.items()}

    def _is_common(self, facet: Facet) -> bool:
        share = self._num_showing[facet] / self._num_items[facet.source]
        return facet.is_plain and COMMON_SHARE <= share < 1


def recency_weights(length: int) -> list[float]:
    """Weights of a history's places, oldest first, halving every five steps back and adding up to `length`.

    >>> [round(weight, 3) for weight in recency_weights(6)]
    [0.688, 0.79, 0.907, 1.042, 1.197, 1.375]
    """
    raw = [0.5 ** ((length - 1 - place) / HALF_LIFE) for place in range(length)]
    return [weight * length / sum(raw) for weight in raw]


def log_odds(*, own: float, own_total: float, others: float, others_total: float, share: float) -> float:
    """The score of the formula above; 0 for what all items or none of them show.

    `share` is the facet's share of the whole catalogue, by which the prior's ten items are split.
    """
    if not 0 < share < 1:
        return 0.0
    a, b = PRIOR_ITEMS * share, PRIOR_ITEMS * (1 - share)
    cells = (own + a, own_total - own + b, others + a, others_total - others + b)
    delta = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
    return delta / math.sqrt(sum(1 / cell for cell in cells))
