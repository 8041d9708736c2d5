"""The checks of a trace's text that need no scorer: leakage of the target, form, and modality consistency.

Leakage: does the text use knowledge of the target, which its writer must not have? A text that names the target's id
or title (`data/naming.py`) is rejected. Three measures look for the rest, each relative to the trace's own history:

    title_overlap     share of the words of the target's title that stand in the text but not in the history, weighted
                      by rarity; words count where they stand near each other, in any order and inflection
    caption_overlap   share of the three-word runs of the target's caption, without those of the history's captions,
                      that stand in the text
    similarity_gap    cosine of the target's title and caption with the text, without the words of its history's titles
                      and captions, in standard deviations above the mean cosine with fifty drawn items

Form: a refined trace has the four steps of `steps.py`. A trace that lacks a step, or has them out of order, is
rejected; one with another fault (a step too long, two sentences where there should be one) gets 0.5 for its steps. The
length part is 1 for 30 to 320 words and falls to 0 at 10 and at 640; traces beyond that are rejected.

Modality consistency is measured in `modality.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from mllmrec.data.candidates.negatives import Draw, PoolSampler
from mllmrec.data.naming import Naming
from mllmrec.data.sequences import Catalogue, Interactions
from mllmrec.data.title_spellings import words
from mllmrec.data.traces import Joined
from mllmrec.models.embedding import Embedder, make_embedders
from mllmrec.reasoning.assessment.modality import Floats, ItemSpace, ModalityJudge
from mllmrec.reasoning.writing.steps import NUM_STEPS, broken_rule, step_numbers
from mllmrec.records import Trace
from mllmrec.settings.texts import AssessSettings

NUM_NEGATIVES, FEWEST_NEGATIVES, SMALLEST_SPREAD = 50, 5, 0.02
STEM, NEARBY, FEWEST_WORDS, FEWEST_RUNS, CACHED_ITEMS = 5, 4, 2, 3, 1 << 16
TITLE_OVERLAP, CAPTION_OVERLAP, SIMILARITY_GAP = 0.7, 0.4, 10.0
LEAST_WORDS, USUAL_WORDS, MOST_WORDS = 10, (30, 320), 640
NAMED = {"id": "names the target's id", "title": "names the target's title"}
PARAPHRASED = "paraphrases the target's title"
REPEATED = "repeats the target's caption"
CLOSER = "is close to the target alone"
EMPTY, SHORT, LONG = "is empty", "has too few words", "has too many words"
STEPS = "lacks the four steps"


class Examination:
    """Examines traces of one dataset; `stepped` for refined traces, which have the four steps."""

    def __init__(
        self, interactions: Interactions, captions: Mapping[str, str], settings: AssessSettings, *, stepped: bool
    ) -> None:
        self._stepped = stepped
        for_modality, for_leakage = make_embedders(settings.embedder, settings.device)
        self._modality = ModalityJudge(interactions, captions, for_modality, settings.seed)
        self._leakage = LeakageJudge(interactions.catalogue, captions, for_leakage, settings.seed)

    def rows(self, joined: Sequence[Joined]) -> list[dict[str, Any]]:
        """The records with their scores, and with the reason for which each is rejected, or None."""
        traces = [trace for trace, _ in joined]
        parts = zip(joined, self._modality.judge(traces), self._leakage.judge(traces), strict=True)
        rows = []
        for (trace, record), modality, leakage in parts:
            form = form_of(trace.reasoning, stepped=self._stepped)
            scores = {
                "modality": modality.score,
                "modality_margin": modality.margin,
                "lift": None,
                "lift_error": None,
                "steps": form.steps,
                "length": form.length,
                "words": form.words,
                "title_overlap": leakage.title_overlap,
                "caption_overlap": leakage.caption_overlap,
                "similarity_gap": leakage.similarity_gap,
            }
            reason = leakage.reason or form.reason
            rows.append({**storable(record), "example_id": trace.example_id, "scores": scores, "reason": reason})
        return rows


def storable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as UTF-8 can hold it: half of a surrogate pair, which JSON may spell, becomes a question mark."""
    cleaned: dict[str, Any] = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return cleaned


class Leakage(NamedTuple):
    """The three measures of leakage; `reason` is why the trace is rejected, None where nothing leaks."""

    reason: str | None
    title_overlap: float
    caption_overlap: float
    similarity_gap: float


class LeakageJudge:
    """Measures what traces reveal of their target beyond their history."""

    def __init__(self, catalogue: Catalogue, captions: Mapping[str, str], embedder: Embedder, seed: int) -> None:
        self._catalogue, self._captions, self._seed = catalogue, captions, seed
        self._naming = Naming(catalogue, captions)
        self._space = ItemSpace({item: self._description(item) for item in catalogue}, embedder)
        self._sampler = PoolSampler(catalogue.ids)
        self._title_frequency = Counter(stem for item in catalogue for stem in set(stems(words(catalogue.title(item)))))
        self._item_stems = lru_cache(CACHED_ITEMS)(lambda item: frozenset(stems(words(self._description(item)))) - {""})
        self._runs_of = lru_cache(CACHED_ITEMS)(lambda item: runs(words(captions.get(item, ""))))

    def judge(self, traces: Sequence[Trace]) -> list[Leakage]:
        """The leakage of each trace; it doesn't depend on the other traces."""
        written = [words(trace.reasoning) for trace in traces]
        known = [frozenset[str]().union(*map(self._item_stems, trace.history)) for trace in traces]
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
        reason = next((reason for reason, applies in reasons.items() if applies), None)
        return Leakage(reason, round(title, 3), round(caption, 3), round(gap, 3))

    def _title_overlap(self, trace: Trace, written: Sequence[str], known: frozenset[str]) -> float:
        """0 where fewer than two words of the title count; titles of one word are checked by `Naming`."""
        title = set(stems(words(self._catalogue.title(trace.target_id)))) - {""}
        matches = near(stems(written), title - known, NEARBY * len(title))
        if len(title) < FEWEST_WORDS or len(matches) < FEWEST_WORDS:
            return 0.0
        return sum(map(self._rarity, matches)) / sum(map(self._rarity, title))

    def _caption_overlap(self, trace: Trace, written: Sequence[str]) -> float:
        own_runs = self._runs_of(trace.target_id).difference(*map(self._runs_of, trace.history))
        matches = own_runs & runs(written)
        return len(matches) / len(own_runs) if len(matches) >= FEWEST_RUNS else 0.0

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

    def _description(self, item: str) -> str:
        return f"{self._catalogue.title(item)}. {self._captions.get(item, '')}"

    def _without(self, written: Sequence[str], known: frozenset[str]) -> list[str]:
        """The words whose stem isn't among `known`, those of the history."""
        return [word for word, stem in zip(written, stems(written), strict=True) if stem not in known]

    def _rarity(self, stem: str) -> float:
        return math.log(1 + len(self._catalogue) / (1 + self._title_frequency[stem]))


def stems(text: Sequence[str]) -> list[str]:
    """The first five letters of each word, as a stem; empty for stop words and numbers.

    >>> stems(["the", "kettles", "of", "copper", "1999"])
    ['', 'kettl', '', 'coppe', '']
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ["" if word in ENGLISH_STOP_WORDS or word.isdigit() else word[:STEM] for word in text]


def near(written: Sequence[str], wanted: set[str], reach: int) -> set[str]:
    """The largest part of `wanted` whose words stand within `reach` words of each other.

    >>> sorted(near(["a", "kettl", "made", "of", "coppe"], {"kettl", "coppe", "moon"}, 4))
    ['coppe', 'kettl']
    """
    positions = [at for at, stem in enumerate(written) if stem in wanted]
    groups = ({written[other] for other in positions if at <= other < at + reach} for at in positions)
    return max(groups, key=len, default=set())


def runs(written: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The runs of three words of a text."""
    return frozenset(zip(written, written[1:], written[2:], strict=False))


class TraceForm(NamedTuple):
    """`steps` and `length` in [0, 1], `steps` None for a draft; `reason` is why the trace is rejected, else None."""

    reason: str | None
    steps: float | None
    length: float
    words: int


def form_of(text: str, *, stepped: bool) -> TraceForm:
    """The form of a trace; `stepped` for refined ones.

    >>> form_of("Quiet lakes. " * 20, stepped=False)
    TraceForm(reason=None, steps=None, length=1.0, words=40)
    """
    count = len(text.split())
    length = _length(count)
    if not stepped:
        return TraceForm(_wrong_length(count), None, length, count)
    if step_numbers(text) != list(range(1, NUM_STEPS + 1)):
        return TraceForm(_wrong_length(count) or STEPS, 0.0, length, count)
    return TraceForm(_wrong_length(count), 1.0 if broken_rule(text, is_bare=True) is None else 0.5, length, count)


def _wrong_length(count: int) -> str | None:
    if not count:
        return EMPTY
    return SHORT if count < LEAST_WORDS else LONG if count > MOST_WORDS else None


def _length(count: int) -> float:
    least, most = USUAL_WORDS
    rising, falling = (count - LEAST_WORDS) / (least - LEAST_WORDS), (MOST_WORDS - count) / (MOST_WORDS - most)
    return round(max(0.0, min(1.0, rising, falling)), 4)
