"""Candidate protocols: what a ranker is asked, and the only place where their names are spelled and parsed.

    uni9, pop99         the target among items drawn uniformly, or in proportion to training popularity
    hard19              the target among the items that a retriever ranks highest
    rr100               the items that a retriever ranks highest; the target may not be among them
    full                every item that the user isn't known to have met
    legacy-uni9         the reference implementation's draw
    foreign-NAME        lists that others made: imported, or without a manifest

The lists of a retriever bear its name: `hard19-popularity`. Files by the default retriever keep the short stem
(`test_hard19_w10_s42.jsonl`); figures on them are shown as `hard19-itemknn`. Every other name is that of a file
which isn't named by these rules; it is a foreign protocol too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from mllmrec.records import Split
from mllmrec.settings.data import DEFAULT_RETRIEVER, CandidatesSettings, Negatives, Random, RetrieveSettings
from mllmrec.settings.evaluation import RunSettings
from mllmrec.storage.workspace import DatasetFiles

Kind = Literal[Negatives, "foreign"]
"""How the items beside a target come about: as --negatives names it, or `foreign`."""
ListSettings = CandidatesSettings | RetrieveSettings | RunSettings
"""Settings that make or name a candidate file."""
Mode = Literal["train", "generate"]
"""What a prompt cache of the reference is for: its `train` caches hold finished messages, the others lists."""

STEMS: dict[Kind, str] = {"uniform": "uni", "popularity": "pop", "hard": "hard", "rerank": "rr", "all": "full"}
WORDS: dict[Kind, str] = {
    "uniform": "the target among {n} items drawn uniformly from those the user isn't known to have met",
    "popularity": "the target among {n} items drawn by popularity from those the user isn't known to have met",
    "hard": "the target among the {n} other items that {retriever}, fitted on train alone, ranks highest for the user",
    "rerank": "the {n} items that {retriever}, fitted on train alone, ranks highest for the user; a target that isn't "
    "among them counts as missed",
    "all": "the target among all items that the user isn't known to have met",
    "foreign": "lists that weren't drawn here, such as imported ones: what stands beside the target was others' "
    "choice, and figures compare with others on the same lists alone",
}
LEGACY_WORDS = (
    "the target among {n} items drawn as the reference implementation draws them, which may include items the user did "
    "meet"
)
FOREIGN, LEGACY = "foreign-", "legacy-"
IMPORTED = "imported"
"""The input of a manifest that holds the file which imported lists were read from."""

_NAME = re.compile(rf"({LEGACY}uni|uni|pop|hard|rr|full)(\d*)(?:-([a-z][a-z0-9-]*))?")
_FILE = re.compile(r"(train|valid|test)_([^_]+)_w(\d+)_s(-?\d+)\.jsonl")
_CACHE = re.compile(
    r"(?P<split>train|valid|test)_(?P<mode>train|generate)_seed(?P<seed>\d+)_neg(?P<num_neg>\d+)"
    r"(?:_cot_(?P<cot_prob>[\d.]+))?(?:_int_(?P<window>\d+))?\.json"
)


class Protocol(NamedTuple):
    """A protocol taken apart.

    `num` counts the items beside the target (of a rerank list, all); `name` is that of a foreign protocol, whose kind
    is `foreign`.
    """

    kind: Kind
    num: int = 0
    retriever: str = ""
    legacy: bool = False
    name: str = ""

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """The protocol of a stem or a shown name; a foreign one for a name that isn't made by the rules above.

        >>> Protocol.parse("hard19-markov")
        Protocol(kind='hard', num=19, retriever='markov', legacy=False, name='')
        >>> Protocol.parse("rr100") == Protocol.parse("rr100-itemknn") == Protocol("rerank", 100, "itemknn")
        True
        >>> Protocol.parse("foreign-llmrank").foreign
        True
        """
        parts = _NAME.fullmatch(name)
        if parts is None:
            return cls("foreign", name=name)
        stem, number, retriever = parts[1].removeprefix(LEGACY), parts[2], parts[3] or ""
        kind = next(kind for kind, own in STEMS.items() if own == stem)
        retrieved = kind in ("hard", "rerank")
        if bool(number) == (kind == "all") or (retriever and not retrieved):
            return cls("foreign", name=name)
        chosen = retriever or (DEFAULT_RETRIEVER if retrieved else "")
        return cls(kind, int(number or 0), chosen, legacy=parts[1] != stem)

    @classmethod
    def asked(cls, settings: ListSettings) -> Protocol:
        """The protocol of the lists that settings make, import, or (for a RUN) rank.

        >>> Protocol.asked(RetrieveSettings(dataset="shop", rerank=True)).stem
        'rr100'
        """
        if isinstance(settings, RetrieveSettings):
            return cls("rerank" if settings.rerank else "hard", settings.count, settings.retriever)
        if isinstance(settings, CandidatesSettings) and settings.import_:
            return cls.of_others(settings.foreign_name)
        retriever = ""
        if isinstance(settings, RunSettings) and settings.negatives in ("hard", "rerank"):
            retriever = settings.retriever
        num = 0 if settings.negatives == "all" else settings.num_neg
        return cls(
            settings.negatives, num, retriever, legacy=isinstance(settings, CandidatesSettings) and settings.legacy
        )

    @classmethod
    def of_others(cls, name: str) -> Protocol:
        """The protocol of lists that others made.

        >>> Protocol.of_others("llmrank").shown
        'foreign-llmrank'
        """
        return cls("foreign", name=f"{FOREIGN}{name}")

    @property
    def stem(self) -> str:
        """Its part of a file's name.

        >>> Protocol("hard", 19, "itemknn").stem, Protocol("hard", 19, "sasrec").stem, Protocol("all").stem
        ('hard19', 'hard19-sasrec', 'full')
        """
        if self.foreign:
            return self.name
        number = "" if self.kind == "all" else str(self.num)
        suffix = f"-{self.retriever}" if self.retriever not in ("", DEFAULT_RETRIEVER) else ""
        return (LEGACY if self.legacy else "") + STEMS[self.kind] + number + suffix

    @property
    def shown(self) -> str:
        """Its name beside a metric, the retriever included.

        >>> Protocol("rerank", 100, "itemknn").shown, Protocol("uniform", 9).shown
        ('rr100-itemknn', 'uni9')
        """
        return self.stem + (f"-{self.retriever}" if self.retriever == DEFAULT_RETRIEVER else "")

    @property
    def words(self) -> str:
        """What is asked of a ranker; empty where a file isn't named by the rules above.

        >>> Protocol.parse("full").words
        "the target among all items that the user isn't known to have met"
        >>> Protocol.parse("foreign-llmrank").words[:29], Protocol.parse("mine").words
        ("lists that weren't drawn here", '')
        """
        if self.foreign and not self.name.startswith(FOREIGN):
            return ""
        return (LEGACY_WORDS if self.legacy else WORDS[self.kind]).format(n=self.num, retriever=self.retriever)

    @property
    def foreign(self) -> bool:
        """Whether others made the lists, or the name isn't made by the rules above."""
        return self.kind == "foreign"

    @property
    def random(self) -> bool:
        """Whether negatives are drawn at random, so that two lists have little in common."""
        return self.kind in get_args(Random)

    @property
    def chooser(self) -> str:
        """The retriever that chose the negatives, and therefore can't be ranked on them; empty for other protocols.

        >>> [Protocol.parse(name).chooser for name in ("hard19-itemknn", "rr100-itemknn", "uni9")]
        ['itemknn', '', '']
        """
        return self.retriever if self.kind == "hard" else ""

    @property
    def may_lack_target(self) -> bool:
        """Whether a list may be without its target: a retriever can miss it, and others may leave it out."""
        return self.kind in ("rerank", "all", "foreign")

    @property
    def difficulty(self) -> tuple[int, int]:
        """A sort key: drawn lists first, foreign ones last, shorter lists before longer ones."""
        return (*STEMS, "foreign").index(self.kind), self.num


class ListsName(NamedTuple):
    """What the name of a candidate file says about its lists."""

    split: Split
    protocol: Protocol
    window: int
    seed: int

    @classmethod
    def asked(cls, settings: ListSettings) -> ListsName:
        """The name of the file that settings make, or (for a RUN) rank."""
        return cls(settings.split, Protocol.asked(settings), settings.min_inter, settings.seed)

    @classmethod
    def parse(cls, path: Path) -> ListsName | None:
        """The name of a candidate file taken apart; None for a file that is named otherwise, and for foreign lists.

        >>> ListsName.parse(Path("processed/test_legacy-uni99_w10_s42.jsonl"))[1:]
        (Protocol(kind='uniform', num=99, retriever='', legacy=True, name=''), 10, 42)
        >>> ListsName.parse(Path("processed/test_foreign-llmrank_w10_s42.jsonl")) is None
        True
        """
        parts = _FILE.fullmatch(path.name)
        if parts is None or (protocol := Protocol.parse(parts[2])).foreign:
            return None
        return cls(cast(Split, parts[1]), protocol, int(parts[3]), int(parts[4]))

    def path(self, files: DatasetFiles) -> Path:
        """The file of this name."""
        return files.candidates(self.split, self.protocol.stem, self.window, self.seed)


class CacheName(NamedTuple):
    """What the name of a prompt cache of the reference implementation says; older names have no window (None)."""

    split: Split
    mode: Mode
    num_neg: int
    window: int | None

    @classmethod
    def parse(cls, path: Path) -> CacheName | None:
        """The name of a cache taken apart; None for another file.

        >>> CacheName.parse(Path("processed/test_generate_seed42_neg9_int_10.json"))
        CacheName(split='test', mode='generate', num_neg=9, window=10)
        """
        parts = _CACHE.fullmatch(path.name)
        if parts is None:
            return None
        window = int(parts["window"]) if parts["window"] is not None else None
        return cls(cast(Split, parts["split"]), cast(Mode, parts["mode"]), int(parts["num_neg"]), window)

    @property
    def protocol(self) -> Protocol:
        """The reference's own draw, whatever generation of caches it is."""
        return Protocol("uniform", self.num_neg, legacy=True)


def protocol_of(path: Path) -> Protocol:
    """The protocol that a candidate file or a cache is named after; a foreign one by its stem for any other name.

    >>> protocol_of(Path("processed/test_legacy-uni9_w10_s42.jsonl")).shown
    'legacy-uni9'
    >>> protocol_of(Path("processed/test_hard19_w10_s42.jsonl")).shown
    'hard19-itemknn'
    >>> protocol_of(Path("processed/test_generate_seed42_neg9_int_10.json")).shown
    'legacy-uni9'
    """
    if (cache := CacheName.parse(path)) is not None:
        return cache.protocol
    parts = path.stem.split("_")
    if len(parts) != 4 or path.suffix != ".jsonl":
        return Protocol("foreign", name=path.stem)
    return Protocol.parse(parts[1])
