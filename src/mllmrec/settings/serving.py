"""Settings of the verbs that use a trained model: `recommend` and `serve`."""

from __future__ import annotations

import difflib
from typing import ClassVar

from pydantic import field_validator

from mllmrec.settings.base import Names, knob
from mllmrec.settings.data import RETRIEVERS
from mllmrec.settings.evaluation import ModelSettings, ThoughtSettings


class RecommenderSettings(ThoughtSettings, ModelSettings):
    """A model, and who gives it candidates."""

    retriever: str = knob(
        "auto",
        f"Who finds candidates in the catalogue: {', '.join(RETRIEVERS)}; auto: the one that `mllmrec retrieve` or "
        "`baselines` fitted, else itemknn with its first settings, or popularity without its library.",
    )
    blend: bool = knob(
        True, "Add the other parts of the newest blend with this model to its scores, where there is one."
    )
    min_inter: int = knob(10, "Items in a window, history and target, of a model that wasn't trained here.", ge=2)
    seed: int = knob(42, "Seed of thoughts, and of the retriever's fit.", ge=0)

    @field_validator("retriever")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ("auto", *RETRIEVERS):
            close = difflib.get_close_matches(name, RETRIEVERS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected auto, {', '.join(RETRIEVERS)}"
            raise ValueError(f"retriever: there is no retriever {name!r}; {hint}")
        return name


class RecommendSettings(RecommenderSettings):
    """Recommend items after a history, or rank given ones, with a trained model."""

    verb: ClassVar[str] = "recommend"

    user: str = knob("", "A user of the dataset, in place of --history; the held-out test item is left aside.")
    history: Names = knob((), "What was chosen, oldest first: ids or whole titles, separated by commas.")
    candidates: Names = knob((), "Rank these alone, ids or whole titles; none: the best that the retriever finds.")
    top_k: int = knob(10, "Items to show, best first.", ge=1)
    retrieve: int = knob(100, "Candidates that the retriever finds.", ge=1)
    explain: int = knob(0, "Tell of the N best what leaving out each item of the history does to them.", ge=0)
    json_: bool = knob(False, "Print JSON in place of a table.")
