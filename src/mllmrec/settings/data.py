"""Settings of the stages that make and check a dataset: `prepare`, `candidates`, `retrieve` and `audit`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from mllmrec.settings.base import DatasetSettings, knob

Source = Literal[
    "movielens-100k", "movielens-latest", "movielens-1m", "microlens", "netflix-prize", "amazon", "pairs", "sequences"
]
Quoting = Literal["auto", "csv", "none"]
Random = Literal["uniform", "popularity"]
"""How negatives are drawn at random."""
Drawn = Literal[Random, "all"]
Negatives = Literal[Random, "hard", "rerank", "all"]
"""How the items beside a target come about, in lists that are made here."""
PAIRS_ONLY = (
    "user_column",
    "item_column",
    "time_column",
    "title_column",
    "titles",
    "titles_item_column",
    "rating_column",
    "min_rating",
    "delimiter",
    "quoting",
    "time_format",
)
TITLES_TOO = ("item_column", "title_column", "titles", "titles_item_column", "quoting")
"""The knobs of PAIRS_ONLY that a sequence file takes as well, because its titles stand in such a table."""
RETRIEVERS = ("itemknn", "sasrec", "popularity", "markov")
DEFAULT_RETRIEVER = "itemknn"
HARD, RERANK = 19, 100
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class PrepareSettings(DatasetSettings):
    """Turn raw interaction files into a dataset: sequences, splits, titles, a data card."""

    verb: ClassVar[str] = "prepare"

    source: Source = knob(
        ...,
        "Which files --raw holds; pairs is any table with a user and an item column, sequences a line "
        "`user item item ...` for each user.",
    )
    raw: str = knob(..., "Folder of the unpacked raw files; with pairs and sequences also one file.", operational=True)
    min_inter: int = knob(
        10,
        "Items in a window (history and target), at least 2. leave-one-out drops users with fewer than min-inter + 2 "
        "interactions, so that train, valid and test lines all hold a window; global-time leaves out lines shorter "
        "than min-inter and drops users left with none. Dropped users are counted.",
        ge=2,
    )
    split: Literal["leave-one-out", "global-time"] = knob(
        "leave-one-out",
        "leave-one-out: test targets are the users' last items, validation targets the ones before. global-time: "
        "targets are the users' first items after a cut in time.",
    )
    cut_share: float = knob(
        0.9, "global-time: share of all interactions, by time, that lie before the test cut (0 to 1).", gt=0, lt=1
    )
    valid_cut_share: float = knob(
        0.8,
        "global-time: share of all interactions that lie before the validation cut; no train line goes past it.",
        gt=0,
        lt=1,
    )
    drop_repeats: bool = knob(False, "Keep only a user's first meeting with each item.")
    k_core: int = knob(
        0, "Remove users and items with fewer than this many interactions until none is left; 0 removes none.", ge=0
    )
    user_column: str = knob(
        "user", "pairs: header name of the user's column, or its number from 1 in a file without a header."
    )
    item_column: str = knob("item", "pairs: header name (or number) of the item's column, also looked for in --titles.")
    time_column: str = knob(
        "timestamp", "pairs: header name (or number) of the time column; none takes the order of rows in the file."
    )
    time_format: str = knob(
        "",
        "pairs: how dates are written, in strftime codes such as '%d/%m/%Y %H:%M'; without it numbers, ISO 8601 and "
        "the common forms in which day and month can be told apart are read.",
    )
    drop_missing_times: bool = knob(False, "Leave out interactions without a time; they are counted.")
    title_column: str = knob(
        "title", "pairs: header name of the title's column, in --titles where given, else in the pairs file itself."
    )
    titles_item_column: str = knob(
        "", "pairs: header name (or number) of the item's column in --titles, where it is another than in the pairs."
    )
    titles: str = knob("", "pairs: a table of item titles with a header; its other columns are kept.", operational=True)
    rating_column: str = knob(
        "", "pairs: header name (or number) of a column of ratings, of which --min-rating says what counts as chosen."
    )
    min_rating: float | None = knob(None, "pairs: leave out rows that are rated lower; they are counted.")
    delimiter: str = knob("auto", "pairs: what separates fields, such as ',' or tab; auto looks at the first line.")
    quoting: Quoting = knob(
        "auto",
        "pairs: what a quotation mark is. auto: in files with commas or semicolons it opens a field, in others only "
        "where it encloses a whole field on its line. csv: it opens a field that may run over line ends. none: a "
        "character like any other.",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.split == "global-time" and self.valid_cut_share >= self.cut_share:
            raise ValueError(
                f"valid_cut_share = {self.valid_cut_share} must be below cut_share = {self.cut_share}: the "
                "validation cut comes before the test cut"
            )
        if bool(self.rating_column) != (self.min_rating is not None):
            raise ValueError(
                "rating_column and min_rating belong together: name the column and the lowest rating that counts"
            )
        fields = type(self).model_fields
        foreign = [name for name in PAIRS_ONLY if getattr(self, name) != fields[name].default]
        foreign = [name for name in foreign if self.source != "sequences" or name not in TITLES_TOO]
        if foreign and self.source != "pairs":
            raise ValueError(f"{', '.join(foreign)} can only be set with source pairs, not with {self.source}")
        return self


def known_retriever(name: str) -> str:
    """`name`, when it is a retriever; a ValueError with the nearest one otherwise."""
    if name not in RETRIEVERS:
        close = difflib.get_close_matches(name, RETRIEVERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(RETRIEVERS)}"
        raise ValueError(f"retriever: there is no retriever {name!r}; {hint}")
    return name


class CandidatesSettings(DatasetSettings):
    """Draw the candidate lists of a split once and freeze them in a hashed file."""

    verb: ClassVar[str] = "candidates"

    split: Literal["train", "valid", "test"] = knob("test", "Split whose examples get candidates.")
    num_neg: int = knob(9, "Negatives beside each target.", ge=1)
    negatives: Drawn = knob(
        "uniform",
        "How negatives are drawn. uniform: all items that the user isn't known to have met alike (the protocol uni9). "
        "popularity: those that many chose are likelier (pop9), which is harder. all: none are drawn, the whole "
        "catalogue is ranked (full), which only baselines do.",
    )
    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    seed: int = knob(42, "Seed of the draw.")
    legacy: bool = knob(False, "Draw exactly as the reference implementation does, for comparison.")

    import_: str = knob(
        "",
        "A file of lists that others made (LLMRank's, S3-Rec's, RecBole's, a table or JSON), which are taken in place "
        "of drawing any; see docs/protocols.md.",
        operational=True,
    )
    import_name: str = knob("", "import: what the lists are called, as in foreign-NAME; by default after the file.")
    import_targets: Literal["auto", "listed", "added"] = knob(
        "auto",
        "import: listed: lists are whole, and a target that isn't in its own counts as missed; added: they are "
        "negatives, and the target joins each. auto: by whether all lists hold their target or none does.",
    )
    import_first: int = knob(0, "import: take the first so many items of each list; 0 takes all.", ge=0)

    @model_validator(mode="after")
    def _drawn_or_imported(self) -> Self:
        fields = type(self).model_fields
        drawing = [name for name in ("num_neg", "negatives", "legacy") if getattr(self, name) != fields[name].default]
        if self.import_ and drawing:
            raise ValueError(f"{', '.join(drawing)} can only be set where lists are drawn, not with --import")
        importing = [name for name in fields if name.startswith("import_") and name != "import_"]
        if not self.import_ and (set_ := [name for name in importing if getattr(self, name) != fields[name].default]):
            raise ValueError(f"{', '.join(set_)} can only be set with --import")
        if not NAME.fullmatch(self.foreign_name):
            raise ValueError(
                f"import_name = {self.foreign_name!r}: expected small letters, digits and hyphens, such as llmrank"
            )
        return self

    @property
    def foreign_name(self) -> str:
        """The name of imported lists: --import-name, or the file's name in small letters, digits and hyphens."""
        stem = Path(self.import_).name.lower().removesuffix(".gz").removesuffix(".txt").removesuffix(".jsonl")
        return self.import_name or re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "lists"

    @model_validator(mode="after")
    def _reference_draws_uniformly(self) -> Self:
        if self.legacy and self.negatives != "uniform":
            raise ValueError(f"negatives = {self.negatives!r}: the reference's draw is uniform; leave out --legacy")
        return self


class RetrieveSettings(DatasetSettings):
    """Let a recommender choose the negatives, or the whole list that is to be ranked better, and freeze them."""

    verb: ClassVar[str] = "retrieve"

    split: Literal["valid", "test"] = knob("test", "Split whose examples get candidates.")
    retriever: str = knob(
        DEFAULT_RETRIEVER, f"Who retrieves, fitted on the train lines at full length: {', '.join(RETRIEVERS)}."
    )
    num: int | None = knob(
        None,
        f"Its top items beside each target, {HARD} by default (the protocol hard{HARD}); with --rerank the length of "
        f"the list, {RERANK} by default (rr{RERANK}).",
        ge=1,
    )
    rerank: bool = knob(False, "Take the top items as they come: a target that isn't among them counts as missed.")
    min_inter: int = knob(10, "Items of a window: the history and its target.", ge=2)
    seed: int = knob(42, "Seed of the order of candidates and of draws among equals.")

    _known = field_validator("retriever")(known_retriever)

    @property
    def count(self) -> int:
        """How many items are retrieved for each user."""
        return self.num or (RERANK if self.rerank else HARD)


class AuditSettings(DatasetSettings):
    """Look for leaks in all files of a dataset; exit status 1 when there is one."""

    verb: ClassVar[str] = "audit"

    min_inter: int = knob(
        10, "Items of a window (history and target), where a file's name or rows don't say so; at least 2.", ge=2
    )
