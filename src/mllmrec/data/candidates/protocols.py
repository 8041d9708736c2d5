"""Candidate protocols by name: what a ranker was asked, told with every metric.

    uni9, pop99         the target among items drawn uniformly, or in proportion to training popularity
    hard19              the target among the items that a retriever puts highest
    rr100               what a retriever found; the target may not be there
    full                every item that isn't known of the user
    legacy-uni9         the reference implementation's draw
    foreign-NAME        lists that others made, imported or lying about without a manifest

Lists of a retriever bear its name, because they are its making: `hard19-popularity`. Files by the default one keep the
short stem (`test_hard19_w10_s42.jsonl`) and are told as `hard19-itemknn` like any other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, cast

from mllmrec.data.candidates.legacy import CACHE_NAME
from mllmrec.records import Split
from mllmrec.settings.data import DEFAULT_RETRIEVER, CandidatesSettings, RetrieveSettings

Kind = Literal["uniform", "popularity", "hard", "rerank", "all"]
"""How the items beside a target come about, as --negatives names it."""

STEMS: dict[Kind, str] = {"uniform": "uni", "popularity": "pop", "hard": "hard", "rerank": "rr", "all": "full"}
WORDS: dict[Kind, str] = {
    "uniform": "the target among {n} items drawn uniformly from those the user isn't known to have met",
    "popularity": "the target among {n} items drawn by popularity from those the user isn't known to have met",
    "hard": "the target among the {n} other items that {retriever}, fitted on train alone, ranks highest for the user",
    "rerank": "the {n} items that {retriever}, fitted on train alone, ranks highest for the user; a target that isn't "
    "among them counts as missed",
    "all": "the target among all items that the user isn't known to have met",
}
LEGACY_WORDS = (
    "the target among {n} items drawn as the reference implementation draws them, which may include items the user did "
    "meet"
)
FOREIGN_WORDS = (
    "lists that weren't drawn here, such as imported ones: what stands beside the target was others' choice, and "
    "figures compare with others on the same lists alone"
)
FOREIGN = "foreign-"
"""How the name of a protocol begins that isn't ours: lists that were brought along, or that nothing vouches for."""
IMPORTED = "imported"
"""The input under which the manifest of imported lists tells the file that they were read from."""

_NAME = re.compile(r"(legacy-uni|uni|pop|hard|rr|full)(\d*)(?:-([a-z][a-z0-9-]*))?")
_FILE = re.compile(r"(train|valid|test)_([^_]+)_w(\d+)_s(-?\d+)\.jsonl")


class Protocol(NamedTuple):
    """A protocol taken apart; `num` counts the items beside the target (of a rerank list, all)."""

    kind: Kind
    num: int = 0
    retriever: str = ""
    legacy: bool = False

    @property
    def stem(self) -> str:
        """Its part of a file's name.

        >>> Protocol("hard", 19, "itemknn").stem, Protocol("hard", 19, "sasrec").stem, Protocol("all").stem
        ('hard19', 'hard19-sasrec', 'full')
        """
        number = "" if self.kind == "all" else str(self.num)
        suffix = f"-{self.retriever}" if self.retriever not in ("", DEFAULT_RETRIEVER) else ""
        return ("legacy-" if self.legacy else "") + STEMS[self.kind] + number + suffix

    @property
    def shown(self) -> str:
        """Its name beside a metric, the retriever included.

        >>> Protocol("rerank", 100, "itemknn").shown, Protocol("uniform", 9).shown
        ('rr100-itemknn', 'uni9')
        """
        return self.stem + (f"-{self.retriever}" if self.retriever == DEFAULT_RETRIEVER else "")

    @property
    def words(self) -> str:
        """What is asked of a ranker."""
        return (LEGACY_WORDS if self.legacy else WORDS[self.kind]).format(n=self.num, retriever=self.retriever)


def protocol_named(name: str) -> Protocol | None:
    """The protocol behind a stem or a shown name; None for a name that isn't ours.

    >>> protocol_named("hard19-markov")
    Protocol(kind='hard', num=19, retriever='markov', legacy=False)
    >>> protocol_named("rr100") == protocol_named("rr100-itemknn") == Protocol("rerank", 100, "itemknn")
    True
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    stem, number, retriever = found[1].removeprefix("legacy-"), found[2], found[3] or ""
    kind = next(kind for kind, own in STEMS.items() if own == stem)
    retrieved = kind in ("hard", "rerank")
    if bool(number) == (kind == "all") or (retriever and not retrieved):
        return None
    chosen = retriever or (DEFAULT_RETRIEVER if retrieved else "")
    return Protocol(kind, int(number or 0), chosen, legacy=found[1] != stem)


def protocol_asked_for(settings: CandidatesSettings | RetrieveSettings) -> Protocol:
    """The protocol of the lists that these settings make.

    >>> protocol_asked_for(RetrieveSettings(dataset="shop", rerank=True)).stem
    'rr100'
    """
    if isinstance(settings, RetrieveSettings):
        return Protocol("rerank" if settings.rerank else "hard", settings.count, settings.retriever)
    num = 0 if settings.negatives == "all" else settings.num_neg
    return Protocol(settings.negatives, num, legacy=settings.legacy)


class ListsName(NamedTuple):
    """What the name of a candidate file of ours says about its lists."""

    split: Split
    protocol: Protocol
    window: int
    seed: int


def lists_named(path: Path) -> ListsName | None:
    """The name of a candidate file taken apart; None for one that isn't named our way.

    >>> lists_named(Path("processed/test_pop99_w10_s42.jsonl"))[1:]
    (Protocol(kind='popularity', num=99, retriever='', legacy=False), 10, 42)
    >>> lists_named(Path("processed/test_foreign-llmrank_w10_s42.jsonl")) is None
    True
    """
    parts = _FILE.fullmatch(path.name)
    protocol = protocol_named(parts[2]) if parts is not None else None
    if parts is None or protocol is None:
        return None
    return ListsName(cast(Split, parts[1]), protocol, int(parts[3]), int(parts[4]))


def protocol_of(path: Path) -> str:
    """The protocol that a candidate file is named after, as it is shown; its whole stem when it isn't named our way.

    >>> protocol_of(Path("processed/test_legacy-uni9_w10_s42.jsonl"))
    'legacy-uni9'
    >>> protocol_of(Path("processed/test_hard19_w10_s42.jsonl"))
    'hard19-itemknn'

    The reference implementation's caches hold its own draw, whatever their generation calls them.

    >>> protocol_of(Path("processed/test_generate_seed42_neg9_int_10.json"))
    'legacy-uni9'
    """
    if (cached := CACHE_NAME.fullmatch(path.name)) is not None:
        return Protocol("uniform", int(cached["num_neg"]), legacy=True).shown
    parts = path.stem.split("_")
    if len(parts) != 4 or path.suffix != ".jsonl":
        return path.stem
    named = protocol_named(parts[1])
    return named.shown if named is not None else parts[1]
