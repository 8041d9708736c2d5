"""The distinctive facets of a history: log-odds against the catalogue, with an informative Dirichlet prior.

After Monroe, Colaresi and Quinn, "Fightin' Words" (2008), equations 15 to 22, counting items in place of tokens: an
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
