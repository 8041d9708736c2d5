"""Leakage: does a trace know the target that it must not know?

The target's id or title in the text, as `data/naming.py` finds them, is the plain case. Three measures look for the
rest, each against what the trace may know, its own history:

    title_overlap     share of the title's telling words that the text has and the history doesn't, weighted by rarity;
                      the words count where they stand near each other, in any order and inflection
    caption_overlap   share of the three-word runs of the target's caption that the history's captions lack and the
                      text has
    similarity_gap    cosine of the target's title and caption with the text, less the words that its history's titles
                      and captions explain, in standard deviations above that with fifty drawn items
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from mllmrec.backends.embedding import Embedder
from mllmrec.data.naming import Naming
from mllmrec.data.negatives import Draw, PoolSampler
from mllmrec.data.sequences import Catalogue
from mllmrec.data.written_words import words
from mllmrec.reasoning.similarity import Floats, ItemSpace
from mllmrec.records import Trace

NUM_NEGATIVES, FEWEST_NEGATIVES, SMALLEST_SPREAD = 50, 5, 0.02
STEM, NEARBY, FEWEST_WORDS, FEWEST_RUNS, CACHED_ITEMS = 5, 4, 2, 3, 1 << 16
TITLE_OVERLAP, CAPTION_OVERLAP, SIMILARITY_GAP = 0.7, 0.4, 10.0
NAMED = {"id": "names the target's id", "title": "names the target's title"}
PARAPHRASED = "paraphrases the target's title"
REPEATED = "repeats the target's caption"
CLOSER = "is close to the target alone"


class Leakage(NamedTuple):
    """`reason` is None where nothing leaks."""

    reason: str | None
    title_overlap: float
    caption_overlap: float
    similarity_gap: float


class LeakageJudge:
    """Looks for what traces know of their target."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str], embedder: Embedder, seed: int) -> None:
        self._catalogue, self._captions, self._seed = catalogue, captions, seed
        self._naming = Naming(catalogue, captions)
        self._space = ItemSpace({item: self._told(item) for item in catalogue}, embedder)
        self._sampler = PoolSampler(catalogue.ids)
        self._num_titled = Counter(stem for item in catalogue for stem in set(stems(words(catalogue.title(item)))))
        self._stems_told = lru_cache(CACHED_ITEMS)(lambda item: frozenset(stems(words(self._told(item)))) - {""})
        self._runs_of = lru_cache(CACHED_ITEMS)(lambda item: runs(words(captions.get(item, ""))))

    def judge(self, traces: Sequence[Trace]) -> list[Leakage]:
        """What each trace knows; each is judged as it would be alone."""
        written = [words(trace.reasoning) for trace in traces]
        known = [frozenset[str]().union(*map(self._stems_told, trace.history)) for trace in traces]
        unexplained = [self._without(text, own) for text, own in zip(written, known, strict=True)]
        closeness = self._space.closeness([" ".join(text) for text in unexplained])
        return [
            self._leakage(trace, written[at], known[at], self._similarity_gap(trace, closeness[at]))
            for at, trace in enumerate(traces)
        ]

    def _leakage(self, trace: Trace, written: Sequence[str], known: frozenset[str], gap: float) -> Leakage:
        named = self._naming.names(trace.reasoning, trace.target_id, trace.history)
        title, caption = self._title_overlap(trace, written, known), self._caption_overlap(trace, written)
        reasons = {
            NAMED.get(named or "", ""): named is not None,
            PARAPHRASED: title >= TITLE_OVERLAP,
            REPEATED: caption >= CAPTION_OVERLAP,
            CLOSER: gap >= SIMILARITY_GAP,
        }
        reason = next((reason for reason, found in reasons.items() if found), None)
        return Leakage(reason, round(title, 3), round(caption, 3), round(gap, 3))

    def _title_overlap(self, trace: Trace, written: Sequence[str], known: frozenset[str]) -> float:
        """Of titles with two telling words or more; one word alone is the naming's business."""
        title = set(stems(words(self._catalogue.title(trace.target_id)))) - {""}
        found = near(stems(written), title - known, NEARBY * len(title))
        if len(title) < FEWEST_WORDS or len(found) < FEWEST_WORDS:
            return 0.0
        return sum(map(self._rarity, found)) / sum(map(self._rarity, title))

    def _caption_overlap(self, trace: Trace, written: Sequence[str]) -> float:
        telling = self._runs_of(trace.target_id).difference(*map(self._runs_of, trace.history))
        found = telling & runs(written)
        return len(found) / len(telling) if len(found) >= FEWEST_RUNS else 0.0

    def _similarity_gap(self, trace: Trace, cosines: Floats) -> float:
        """Standard deviations above the negatives; 0 where an item of the history is as close as the target."""
        rows, avoided = self._space.rows, frozenset((*trace.history, trace.target_id))
        count = min(NUM_NEGATIVES, len(rows) - len(avoided & rows.keys()))
        if trace.target_id not in rows or count < FEWEST_NEGATIVES:
            return 0.0
        drawn = self._sampler.negatives(count, avoided, Draw(self._seed, "leakage", trace.example_id))
        negatives, target = cosines[[rows[item] for item in drawn]], float(cosines[rows[trace.target_id]])
        own = max((float(cosines[rows[item]]) for item in trace.history if item in rows), default=0.0)
        spread = max(float(negatives.std()), SMALLEST_SPREAD)
        return max(0.0, target - float(negatives.mean())) / spread if target > own else 0.0

    def _told(self, item: str) -> str:
        return f"{self._catalogue.title(item)}. {self._captions.get(item, '')}"

    def _without(self, written: Sequence[str], known: frozenset[str]) -> list[str]:
        """The words that the history doesn't explain."""
        return [word for word, stem in zip(written, stems(written), strict=True) if stem not in known]

    def _rarity(self, stem: str) -> float:
        return math.log(1 + len(self._catalogue) / (1 + self._num_titled[stem]))


def stems(text: Sequence[str]) -> list[str]:
    """The beginnings of words, which survive inflection; stop words and numbers are left empty.

    >>> stems(["the", "kettles", "of", "copper", "1999"])
    ['', 'kettl', '', 'coppe', '']
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ["" if word in ENGLISH_STOP_WORDS or word.isdigit() else word[:STEM] for word in text]


def near(written: Sequence[str], wanted: set[str], reach: int) -> set[str]:
    """The most of `wanted` that stand within `reach` words of each other.

    >>> sorted(near(["a", "kettl", "made", "of", "coppe"], {"kettl", "coppe", "moon"}, 4))
    ['coppe', 'kettl']
    """
    places = [at for at, stem in enumerate(written) if stem in wanted]
    groups = ({written[other] for other in places if at <= other < at + reach} for at in places)
    return max(groups, key=len, default=set())


def runs(written: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The runs of three words of a text."""
    return frozenset(zip(written, written[1:], written[2:], strict=False))
