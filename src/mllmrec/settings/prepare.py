"""Settings of `prepare`: raw interaction files in, a dataset folder out."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from mllmrec.settings.base import DatasetSettings, knob

Source = Literal[
    "movielens-100k", "movielens-latest", "movielens-1m", "microlens", "netflix-prize", "amazon", "pairs", "sequences"
]
Quoting = Literal["auto", "csv", "none"]
PAIRS_ONLY = (
    "user_column",
    "item_column",
    "time_column",
    "title_column",
    "titles",
    "titles_item_column",
    "delimiter",
    "quoting",
    "time_format",
)
TITLES_TOO = ("item_column", "title_column", "titles", "titles_item_column", "quoting")
"""Which of these a sequence file takes as well, because its titles stand in such a table."""


class PrepareSettings(DatasetSettings):
    """How raw interactions become train.tsv, valid.tsv, test.tsv, titles, pairs and a data card."""

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
        fields = type(self).model_fields
        foreign = [name for name in PAIRS_ONLY if getattr(self, name) != fields[name].default]
        foreign = [name for name in foreign if self.source != "sequences" or name not in TITLES_TOO]
        if foreign and self.source != "pairs":
            raise ValueError(f"{', '.join(foreign)} can only be set with source pairs, not with {self.source}")
        return self
