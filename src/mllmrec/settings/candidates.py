"""Settings of `mllmrec candidates` and `mllmrec retrieve`, which freeze the lists that are ranked."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from mllmrec.settings.base import DatasetSettings, knob

RETRIEVERS = ("itemknn", "sasrec", "popularity", "markov")
DEFAULT_RETRIEVER = "itemknn"
HARD, RERANK = 19, 100
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def known_retriever(name: str) -> str:
    """`name`, when it is a retriever; a ValueError with the nearest one otherwise."""
    if name not in RETRIEVERS:
        close = difflib.get_close_matches(name, RETRIEVERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(RETRIEVERS)}"
        raise ValueError(f"retriever: there is no retriever {name!r}; {hint}")
    return name


class CandidatesSettings(DatasetSettings):
    """Draw and freeze the candidate lists of a split."""

    verb: ClassVar[str] = "candidates"

    split: Literal["train", "valid", "test"] = knob("test", "Split whose examples get candidates.")
    num_neg: int = knob(9, "Negatives beside each target.", ge=1)
    negatives: Literal["uniform", "popularity", "all"] = knob(
        "uniform", "How negatives are drawn; all: none are, the whole catalogue is ranked, which only baselines do."
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
        """What imported lists are called: --import-name, or what can be kept of the file's name."""
        stem = Path(self.import_).name.lower().removesuffix(".gz").removesuffix(".txt").removesuffix(".jsonl")
        return self.import_name or re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "lists"

    @model_validator(mode="after")
    def _reference_draws_uniformly(self) -> Self:
        if self.legacy and self.negatives != "uniform":
            raise ValueError(f"negatives = {self.negatives!r}: the reference's draw is uniform; leave out --legacy")
        return self


class RetrieveSettings(DatasetSettings):
    """Have a recommender choose what stands beside each target, or what is to be ranked at all, and freeze it."""

    verb: ClassVar[str] = "retrieve"

    split: Literal["valid", "test"] = knob("test", "Split whose examples get candidates.")
    retriever: str = knob(
        DEFAULT_RETRIEVER, f"Who retrieves, fitted on the train lines at full length: {', '.join(RETRIEVERS)}."
    )
    num: int | None = knob(
        None,
        f"Its top items beside each target, {HARD} by default; with --rerank the length of the list, {RERANK} by "
        "default.",
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
